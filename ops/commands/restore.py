"""`restore`: bring the stack back to a backup, or to a point in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import backup_config, compose, preflight, restored, secrets_store, settings_file
from ops.backup import new_stack, replaced, repository, restoration, restored_database, saved_files
from ops.backup.restoration import Restoration
from ops.backup.sets import choose, parse_time
from ops.deployment import obtain_images
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import ask_to_confirm, console, heading, report
from ops.status_tables import print_urls
from ops.storage_option import FromStorage
from ops.upgrade import journal

if TYPE_CHECKING:
    from ops.backup.repository import Repository
    from ops.project import Project


SHOW, RELEASE, FORGET = "show", "release", "forget"
REPLACES = "This stops the stack and replaces its database; what was written since the target is lost."


def restore(
    after: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=f"[{SHOW}|{RELEASE} [DAG]...|{FORGET}]",
            help=f"After a restore: `{SHOW}` what waits, `{RELEASE}` what is held, all or some DAGs, or `{FORGET}` the "
            "database that it replaced.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Restore this point in time; UTC if it has no zone.", show_default=False),
    ] = None,
    backup: Annotated[
        str | None, typer.Option(metavar="ID", help="Restore this backup, without what came after.", show_default=False)
    ] = None,
    storage: FromStorage = None,
    to_new_stack: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Restore into a new stack beside this one.", show_default=False),
    ] = None,
    with_files: Annotated[
        bool, typer.Option("--with-files", help="Also missing DAGs, logs and artifacts, as on an empty machine.")
    ] = False,
    accept_problems: Annotated[
        bool, typer.Option("--accept-problems", help="Also a database in which the checks find damage or lost rows.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="No confirmation before a database is lost.")] = False,
) -> None:
    """Restore the database from the backups, by default everything that they have.

    On an empty machine it needs the passphrase in compose/secrets/backup_passphrase, and the place of the backups in
    compose/.env (BACKUP_FOLDER, or BACKUP_STORAGE and BACKUP_S3_*), and restores the files too. The stack runs on until
    the restored database is complete. All DAGs are then held: nothing runs until you release it.

    Example: ./ops/stack restore --at 2026-11-29T20:15:00+01:00
    """
    project = current_project()
    if after:
        if at or backup or storage or to_new_stack:
            raise StackError(f"cannot combine {after[0]} with a target: it follows a restore", hint="leave it out")
        after_restore(project, after[0], after[1:], is_confirmed=yes)
        return
    if at and backup:
        raise StackError("cannot use --at with --backup: each names a target", hint="leave out one of them")
    hint = "run ./ops/stack restore again; ./ops/stack up starts the stack on the database that it has"
    with when_interrupted(hint), stack_lock(project, "restore", report):
        heading("Pre-flight: no impact yet")
        journal.refuse_unfinished(project, "restore")
        planned, system_id = plan(project, Target(at, backup, storage, to_new_stack))
        current = restoration.current_database(planned)
        planned = replace(planned, with_files=with_files or not current)
        restoration.check_same_database(planned, current, system_id)
        describe(planned)
        if current:
            confirm(REPLACES, is_confirmed=yes)

        heading("Restoring")
        restoration.restore_database(planned)
        restoration.restore_files(planned)
        images = obtain_images(planned.project.root, settings_file.profiles(planned.settings))
        held: dict[str, Any] = {}

        def hold_and_check() -> None:
            held.update(restored.hold(planned.project))
            if not accept_problems:
                report("checking the restored database")
                restored.refuse_problems(planned.project, planned.chosen.rows if planned.is_exact else {})

        restoration.change(planned, images, hold_and_check)
        restored.print_report(held)
        print_urls(planned.project, planned.settings)
        stack = shown_command(project, planned.project)
        if kept := replaced.sizes(compose.instances(planned.name)):
            size = replaced.shown(kept)
            report(f"the replaced database is kept, {size}, until the next restore or {stack} restore {FORGET}")
        report(f"DAGs are held; run {stack} restore show, then restore release")


def after_restore(project: Project, action: str, dags: list[str], *, is_confirmed: bool) -> None:
    """Show what waits after a restore, release DAGs, or delete the replaced database.

    Raises:
        StackError: The action is unknown, the stack does not run, or a DAG is not held.
    """
    if action not in (SHOW, RELEASE, FORGET) or (action != RELEASE and dags):
        raise StackError(
            f"cannot restore {' '.join([action, *dags])!r}: it is not {SHOW}, {RELEASE} or {FORGET}",
            hint=f"use --at or --backup for a target, {SHOW} or {FORGET} alone, or {RELEASE} with DAGs",
        )
    name = compose.running_settings(project)["COMPOSE_PROJECT_NAME"]
    if action == FORGET:
        forget(project, name, is_confirmed=is_confirmed)
        return
    if action == RELEASE:
        restored.print_report(restored.release(project, dags))
        return
    restored.print_report(restored.show(project))
    restored.print_report(restored.missed(project))


def forget(project: Project, name: str, *, is_confirmed: bool) -> None:
    """Delete the database that a restore replaced.

    Raises:
        StackError: A restore has not ended, or there is no terminal for the question.
        typer.Abort: The user declined.
    """
    with stack_lock(project, "restore", report):
        by_service = compose.instances(name)
        replaced.refuse_only_way_back(by_service)
        kept = replaced.sizes(by_service)
        if not kept:
            report("no replaced database is kept")
            return
        size = replaced.shown(kept)
        confirm(f"This deletes the database that the restore replaced, {size}.", is_confirmed=is_confirmed)
        replaced.delete(by_service)
        report("the replaced database is deleted")


def shown_command(project: Project, target: Project) -> str:
    """Return the command line of the stack that was restored."""
    return "./ops/stack" if target == project else f"STACK_STATE_DIR={target.state} ./ops/stack"


@dataclass(frozen=True)
class Target:
    """What a restore is asked for: a time, a backup, a storage, and the name of a new stack; None for the default."""

    at: str | None
    backup: str | None
    storage: str | None
    new_name: str | None


def plan(project: Project, asked: Target) -> tuple[Restoration, str]:
    """Check everything that a restore needs, and return what it will do and the identifier of the saved database.

    Raises:
        StackError: A check failed; nothing was changed.
    """
    preflight.check_docker()
    target = parse_time(asked.at) if asked.at else None
    settings = settings_file.read(project)
    source = readable_repository(project, settings)
    contents = repository.contents(source.only(asked.storage) if asked.storage in source.storages else source)
    for name, problem in contents.problems.items():
        report(f"{name}: {problem}")
    chosen = choose(contents.sets, target, asked.backup, datetime.now(UTC), asked.storage)
    source = source.only(chosen.storage)
    saved = saved_files.saved_settings(source, chosen.files) if chosen.files else {}
    if asked.new_name is not None:
        project, settings = new_stack.prepare(project, settings | saved, asked.new_name)
    else:
        written = settings_file.parse(project.env_file, project.shown(project.env_file))
        settings |= {key: value for key, value in saved.items() if key not in written}
        # Whoever restores has the passphrase.
        settings[backup_config.STORED] = backup_config.digest(project)
    if not settings_file.has_own_data(settings):
        raise StackError(
            "cannot restore: Postgres is external",
            where=project.shown(project.env_file),
            hint="restore it with its own tools",
        )
    for check in preflight.machine_checks(project, settings, compose.instances(settings["COMPOSE_PROJECT_NAME"])):
        check()
    saved_files.refuse_without_key(project, chosen)
    is_exact = asked.backup is not None
    planned = Restoration(
        project, settings, source, chosen, target, is_exact, report, is_new_stack=asked.new_name is not None
    )
    return planned, contents.system_id


def readable_repository(project: Project, settings: dict[str, str]) -> Repository:
    """Return the repository and an image that reads it, which is pulled or built if none is on this machine."""
    passphrase = project.secrets / backup_config.PASSPHRASE
    if not passphrase.exists():
        raise StackError(
            "cannot read the backups: their passphrase is missing",
            where=project.shown(passphrase),
            hint="write the passphrase that you stored outside the machine into this file, then run: "
            f"chmod 600 {project.shown(passphrase)}",
        )
    secrets_store.check_file(project, passphrase)
    image = settings.get("BACKUP_IMAGE")
    if not image or not compose.docker("image", "ls", "--quiet", image).strip():
        image = obtain_images(project.root, ("data", "backup"))["BACKUP_IMAGE"].reference
    return repository.of_stack(project, settings, image)


def describe(planned: Restoration) -> None:
    """Print what will be restored, and check the disk."""
    point = f"{planned.at:%Y-%m-%d %H:%M:%S} UTC" if planned.at else "everything in the repository"
    chosen = planned.chosen
    report(f"backup {chosen.label} in {chosen.storage}, to {'the backup itself' if planned.is_exact else point}")
    volume = f"{planned.name}_{planned.tier.restored}"
    if volume in compose.volumes(planned.name):
        restored_database.check_room(planned.source.image, volume, planned.chosen, nodes=1 + len(planned.tier.copied))


def confirm(warning: str, *, is_confirmed: bool) -> None:
    """Print what will be lost and ask for confirmation, unless it was given.

    Raises:
        StackError: There is no terminal for the question.
        typer.Abort: The user declined.
    """
    if is_confirmed:
        return
    console.print(warning)
    ask_to_confirm("Continue?")
