"""`upgrade`: bring the running stack to another version, and return if that fails."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops import patch_report, preflight, rotation_state, settings_file
from ops.compose import running_settings
from ops.deployment import obtain_images
from ops.errors import StackError
from ops.lock import stack_lock
from ops.project import ROOT, Project, current_project, dags_folder, plugins_folder
from ops.screen import heading, report
from ops.services import POSTGRES_NODES
from ops.upgrade import checks, course, journal, revision, safety_backup
from ops.upgrade.course import Upgrade
from ops.upgrade.image_facts import airflow_facts
from ops.upgrade.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


THIS_CHECKOUT = "this checkout"
TOOLS = ".bootstrap"
"""The folder of uv (ops/bootstrap/python.sh): a version with the same uv need not fetch it again."""


def upgrade(
    to: Annotated[
        str,
        typer.Option(metavar="REF", help="A tag, branch or commit of this repository; else the checkout as it is."),
    ] = "",
    without_backup: Annotated[
        bool, typer.Option("--without-backup", help="Change the database without a backup before.")
    ] = False,
    backup_within: Annotated[
        int,
        typer.Option(min=0, metavar="MINUTES", help="Use the newest backup if it is complete and at most this old."),
    ] = 0,
    checkout: Annotated[Path | None, typer.Option(hidden=True, help="The checkout of the stack.")] = None,
) -> None:
    """Bring the running stack to another version; return to the version before if a step fails.

    Containers are replaced one at a time, each healthy before the next, and workers finish their tasks. Where the
    schema of the database changes, Airflow stops, the database is copied and migrated, and Airflow starts again.

    With --to, the files of that version are checked first and then checked out. Without it, the stack gets the images
    of this checkout; the way back then concerns images and database, not the checkout's files.

    Example: ./ops/stack upgrade --to v0.2.0
    """
    project = current_project()
    if checkout:  # this process runs the code of the new version: see run_new_version
        project = Project(root=checkout, state=project.state)
    with stack_lock(project, "upgrade", report):
        if journal.read(project):
            seconds = course.go_back(project, report)
            raise StackError(
                f"an upgrade that was interrupted is reverted: the version before runs again after {seconds:.0f} s",
                hint="run ./ops/stack upgrade again",
            )
        settings = running_settings(project)
        rotation_state.refuse_unfinished(project, "upgrade")
        if to and not checkout:
            options = ["--without-backup"] if without_backup else []
            run_new_version(project, to, [*options, f"--backup-within={backup_within}"])
        heading("Pre-flight: no impact yet")
        version = revision.to_check_out(project.root, to) if to else ""
        checked = preflight_checks(project, settings, version, files=ROOT)
        if needs_backup := changes_data(checked, settings) and not without_backup:
            safety_backup.require(settings)
            needs_backup = not safety_backup.is_recent(project, settings, backup_within, report, datetime.now(UTC))
    if needs_backup:
        safety_backup.make(project)
    with stack_lock(project, "upgrade", report):
        journal.refuse_unfinished(project, "upgrade")  # of another process, while the lock was free
        heading("Upgrading")
        before = revision.current(project.root) if to else ""
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        course.run(checked, Journal(version=before, target=to or THIS_CHECKOUT, started=started))
    if checkout:
        revision.remove_worktree(checkout, journal.worktree(project))


def changes_data(checked: Upgrade, settings: Mapping[str, str]) -> bool:
    """Return whether an upgrade changes the database: its schema, or the image of the stack's own Postgres."""
    changes_image = checked.images["POSTGRES_IMAGE"].reference != settings["POSTGRES_IMAGE"]
    return checked.migrates or (changes_image and settings_file.has_own_data(settings))


def run_new_version(project: Project, reference: str, options: list[str]) -> None:
    """Replace this process by the upgrade of the new version, whose code knows its images, files and order.

    It runs in a folder beside the stack's state: the checkout stays as it is until all checks have passed.

    Raises:
        StackError: There is no such version, or the checkout has changes.
    """
    commit = revision.commit_of(project.root, reference)
    revision.refuse_changes(project.root, commit)
    folder = journal.worktree(project)
    folder.parent.mkdir(parents=True, exist_ok=True)
    revision.add_worktree(project.root, commit, folder)
    if (tools := project.root / TOOLS).is_dir():
        shutil.copytree(tools, folder / TOOLS, symlinks=True)
    report(f"{reference} is {commit[:12]}; its own code checks and upgrades the stack")
    command = [str(folder / "ops/stack"), "upgrade", "--to", reference, "--checkout", str(project.root), *options]
    os.environ["STACK_STATE_DIR"] = str(project.state)
    os.environ.pop("PYTHONPATH", None)  # the folder of this version
    os.execv(command[0], command)  # noqa: S606


def preflight_checks(project: Project, settings: dict[str, str], version: str, files: Path) -> Upgrade:
    """Check everything that can be checked before a change, and return the upgrade.

    Args:
        project: The stack; its checkout has the files of the version that runs.
        settings: The settings of .env, with the images that run.
        version: The branch or commit to check out; empty: the checkout as it is.
        files: The folder with the files of the new version.

    Raises:
        StackError: The first failed check.
    """
    checks.refuse_unhealthy(project)
    preflight.check(project, settings)
    report("the stack is healthy; settings, secrets and DAG files are checked")
    images = obtain_images(files, settings_file.profiles(settings))
    new = settings | {key: image.reference for key, image in images.items()}
    checks.refuse_server_changes(settings, new)
    patch_report.check_image(new["AIRFLOW_IMAGE"], settings)
    report("every patch fits the new image")
    plugins = plugins_folder(project, settings)
    old_facts = airflow_facts(settings["AIRFLOW_IMAGE"], dags_folder(project, settings), plugins)
    with new_dags(project, settings, files) as dags:
        new_facts = airflow_facts(new["AIRFLOW_IMAGE"], dags, plugins)
    checks.refuse_import_errors(old_facts, new_facts)
    migrates = checks.needs_migration(old_facts, new_facts)
    report(f"DAG files import as before: {len(old_facts.import_errors)} with errors without a database in both")
    if migrates and settings_file.has_own_data(settings):
        nodes = len(POSTGRES_NODES) if "data-ha" in settings_file.profiles(settings) else 1
        checks.refuse_full_disk(settings["COMPOSE_PROJECT_NAME"], nodes)
    way = "the schema changes, so Airflow stops for it" if migrates else "the schema stays, so nothing stops"
    report(f"Airflow {old_facts.version} to {new_facts.version}: {way}")
    return Upgrade(project, version, images, migrates, report)


@contextmanager
def new_dags(project: Project, settings: Mapping[str, str], files: Path) -> Iterator[Path]:
    """Provide the DAG files as they will be: those of the new version, and the operator's own."""
    folder = dags_folder(project, settings)
    if project.root == files or not folder.is_relative_to(project.root):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "dags"
        shutil.copytree(folder, target)
        relative = folder.relative_to(project.root)
        for file in revision.git(project.root, "ls-files", "--", str(relative)).splitlines():
            (target / Path(file).relative_to(relative)).unlink(missing_ok=True)
        if (files / relative).is_dir():
            shutil.copytree(files / relative, target, dirs_exist_ok=True)
        for path in [target.parent, target, *target.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield target
