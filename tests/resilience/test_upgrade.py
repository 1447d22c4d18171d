"""An upgrade to Airflow's next version migrates the database; a failure after any step ends with the version before.

Its backup brings the version before back, too. It runs every night (--drills=all) on one stack of its own, in a clone
of this repository whose branch `next` has the next version of Airflow. The rolling upgrade is the drills
`containers-replaced` and `data-tier-replaced`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from ops import backup_config, compose, data_tier, secrets_store, settings_file
from ops.commands.upgrade import preflight_checks
from ops.errors import StackError
from ops.pipeline import verify_pipeline
from ops.project import ROOT, Project
from ops.services import PUBLISHED, SCALABLE, replicas_variable
from ops.upgrade import course, database_copy, journal, revision
from ops.upgrade.course import Step, Upgrade
from ops.upgrade.journal import Journal
from tests.docker_session import remove_session, session_name
from tests.own_stack import free_port

NEXT = "3.4.0b2"
"""A version with another schema, that the package index has."""
RESOLVED_AT = "2026-11-28T00:00:00Z"
STEPS = [step.name for step in course.steps(Upgrade(Project(ROOT, ROOT), "", {}, migrates=True, report=print))]


def git(folder: Path, *arguments: str) -> None:
    revision.git(folder, "-c", "user.name=tests", "-c", "user.email=tests@localhost", *arguments)


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A stack that runs in a clone of this repository; the branch `next` of the clone has the next Airflow."""
    if request.config.getoption("--drills") != "all" or request.config.getoption("--patches") != "all":
        pytest.skip("runs with --drills=all, once: its stack has no patches")
    root = tmp_path_factory.mktemp("upgrade") / "checkout"
    git(ROOT, "clone", "--quiet", str(ROOT), str(root))
    git(root, "checkout", "--quiet", "-b", "before")
    git(root, "checkout", "--quiet", "-b", "next")
    pyproject = root / "pyproject.toml"
    text = re.sub(r"(apache-airflow\[[^]]*]==)[^\"]+", rf"\g<1>{NEXT}", pyproject.read_text())
    pyproject.write_text(re.sub(r'(?m)^(exclude-newer = )".*"', rf'\1"{RESOLVED_AT}"', text))
    subprocess.run([ROOT / ".bootstrap/bin/uv", "lock", "--quiet", "--project", root], check=True)
    git(root, "commit", "--quiet", "--all", "--message", "the next Airflow")
    git(root, "checkout", "--quiet", "before")
    (root / ".venv").symlink_to(ROOT / ".venv")
    for folder in (root.parent, root, root / "compose"):
        folder.chmod(0o755)  # pytest's folders are private, and containers read the DAGs as another user
    project = Project(root, root / "compose")
    secrets_store.generate(project)
    settings = {
        "COMPOSE_PROJECT_NAME": session_name(),
        "COMPOSE_PROFILES": "data,backup",
        backup_config.STORED: backup_config.digest(project),
        **{published.port: str(free_port()) for published in PUBLISHED},
        # Each step starts all of Airflow again; two instances take twice the time on two cores.
        **{replicas_variable(service): "1" for service in SCALABLE},
        "WORKER_STOP_GRACE": "1m",
        "PATCHES": "none",  # they fit one version only
    }
    project.env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    try:
        command(root, "up")
        yield project
    finally:
        remove_session()


def command(root: Path, *arguments: str, stdout: int | TextIO = sys.stdout) -> str:
    """Run `./ops/stack` of a checkout, and return its output if `stdout` is a pipe."""
    environment = {key: value for key, value in os.environ.items() if key not in ("STACK_STATE_DIR", "PYTHONPATH")}
    done = subprocess.run([root / "ops/stack", *arguments], env=environment, stdout=stdout, check=True, text=True)
    return done.stdout or ""


def backups(project: Project) -> list[str]:
    """Return the ids of the backups, the oldest first."""
    listed = command(project.root, "backup", "list", "--json", stdout=subprocess.PIPE)
    return [each["label"] for each in json.loads(listed)]


@pytest.fixture(scope="module")
def upgrade(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    """The checked upgrade to `next`."""
    files = tmp_path_factory.mktemp("next") / "files"
    revision.add_worktree(project.root, "next", files)
    return preflight_checks(project, settings_file.read(project), "next", files)


def schema(upgrade: Upgrade) -> str:
    container = data_tier.writable_postgres(compose.instances(upgrade.name))
    statement = "SELECT version_num FROM alembic_version"
    return compose.docker("exec", container, "psql", "-U", "postgres", "-d", "airflow", "-Atc", statement).strip()


@pytest.mark.parametrize("name", STEPS)
def test_failure_after_a_step_ends_with_the_version_before(
    project: Project, upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch, name: str
):
    before = (schema(upgrade), upgrade.settings["AIRFLOW_IMAGE"])
    original = course.steps

    def fail_after(step: Step) -> Step:
        def run(upgrade: Upgrade) -> None:
            step.run(upgrade)
            raise StackError("the injected failure")

        return Step(step.name, run)

    monkeypatch.setattr(
        course, "steps", lambda upgrade: [fail_after(step) if step.name == name else step for step in original(upgrade)]
    )
    with pytest.raises(StackError, match=r"the injected failure; .* the version before runs again"):
        course.run(upgrade, Journal("before", "next", "now"))
    assert (schema(upgrade), upgrade.settings["AIRFLOW_IMAGE"]) == before
    assert revision.current(project.root) == "before"
    assert not database_copy.exists(upgrade.name)
    assert journal.read(project) is None


def test_upgrade_ends_with_the_next_version_and_its_backup_with_that_before(project: Project, upgrade: Upgrade):
    before, image, older = schema(upgrade), upgrade.settings["AIRFLOW_IMAGE"], backups(project)
    command(project.root, "upgrade", "--to", "next")
    assert schema(upgrade) != before
    assert upgrade.settings["AIRFLOW_IMAGE"] == upgrade.images["AIRFLOW_IMAGE"].reference
    assert revision.current(project.root) == "next"
    verify_pipeline(project, settings_file.read(project))

    backup = next(label for label in backups(project) if label not in older)
    git(project.root, "checkout", "--quiet", "before")
    command(project.root, "restore", "--backup", backup, "--yes")
    command(project.root, "restore", "release")
    assert (schema(upgrade), upgrade.settings["AIRFLOW_IMAGE"]) == (before, image)
    verify_pipeline(project, settings_file.read(project))
