"""An upgrade that fails at any step ends with the version before: files, settings, containers and database."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from ops import compose, rollout
from ops.errors import StackError
from ops.project import Project
from ops.upgrade import course, database_copy, journal, revision
from ops.upgrade.course import Step, Upgrade
from ops.upgrade.journal import Journal
from tests.unit.ops.git_checkout import checkout, git
from tests.unit.ops.simulated_stack import SimulatedStack, simulated

__all__ = ["checkout", "simulated"]

ROLLING = [step.name for step in course.steps(Upgrade(None, "", {}, False, print))]  # type: ignore[arg-type]
MIGRATING = [step.name for step in course.steps(Upgrade(None, "", {}, True, print))]  # type: ignore[arg-type]


class Database:
    """A database with a content, and a copy of it."""

    def __init__(self) -> None:
        self.content = "old"
        self.copy: str | None = None

    def take(self, _: str) -> None:
        self.copy = self.content

    def restore(self, _: str) -> bool:
        if self.copy is None:
            return False
        self.content, self.copy = self.copy, None
        return True

    def discard(self, _: str) -> None:
        self.copy = None


@pytest.fixture
def database(monkeypatch):
    fake = Database()
    for function in ("take", "restore", "discard"):
        monkeypatch.setattr(database_copy, function, getattr(fake, function))
    return fake


@pytest.fixture
def stack(checkout, project, simulated: SimulatedStack, database, monkeypatch):
    """The stack of a checkout, with fakes for what needs Airflow; .env names the version of its containers."""
    project = Project(root=checkout, state=project.state)
    project.env_file.write_text("COMPOSE_PROFILES=data\nAIRFLOW_IMAGE=old\n")
    for path in generated_files(project):
        path.parent.mkdir(parents=True)
        path.write_text("old")

    def config(*_):
        simulated.version = compose.settings_file.read(project)["AIRFLOW_IMAGE"]
        return simulated.model

    def start(*_, services=()) -> None:
        config()
        if not services and simulated.version == "new" and database.copy is not None:
            database.content = "new"
        for service in simulated.model["services"]:
            if not services or service in services:
                simulated.run(None, None, "up", "--no-start", service)
                for each in simulated.containers[service]:
                    if each.state != "running":
                        simulated.start(each.id)

    monkeypatch.setattr(compose, "config", config)
    monkeypatch.setattr(course, "start", start)
    monkeypatch.setattr(course, "roll_out", lambda *_, services: start(services=services))
    monkeypatch.setattr(course, "verify_pipeline", lambda *_: None)
    monkeypatch.setattr(course, "empty_queues", lambda *_: None)
    monkeypatch.setattr(course, "drain", lambda *_: None)

    def configure(*_) -> None:
        project.env_file.write_text("COMPOSE_PROFILES=data\nAIRFLOW_IMAGE=new\n")
        for path in generated_files(project):
            path.write_text("new")
        (project.generated / "rules/added.yaml").write_text("new")

    monkeypatch.setattr(course, "configure", configure)
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    return project


def generated_files(project: Project) -> tuple[Path, Path]:
    """Return a file of each folder that `up` writes for the containers."""
    return project.generated / "rules/wanted.yaml", project.secrets / "mounted/airflow/.digest"


def run(project: Project, *, migrates: bool) -> None:
    upgrade = Upgrade(project, git(project.root, "rev-parse", "new"), {}, migrates, lambda _: None)
    course.run(upgrade, Journal(revision.current(project.root), "new", "now"))


def fail_in(monkeypatch, name: str, error: BaseException, *, afterwards: bool) -> None:
    """Let a step fail before it does its work, or after."""
    original = course.steps

    def failing(step: Step) -> Step:
        def fail(upgrade: Upgrade) -> None:
            if afterwards:
                step.run(upgrade)
            raise error

        return Step(step.name, fail)

    monkeypatch.setattr(
        course,
        "steps",
        lambda upgrade: [failing(step) if step.name == name else step for step in original(upgrade)],
    )


def assert_runs(project: Project, simulated: SimulatedStack, database: Database, version: str) -> None:
    assert (project.root / "version").read_text() == version
    assert f"AIRFLOW_IMAGE={version}" in project.env_file.read_text()
    assert [path.read_text() for path in generated_files(project)] == [version, version]
    assert (project.generated / "rules/added.yaml").exists() is (version == "new")
    assert [path.name for path in journal.folder(project).iterdir()] == []
    assert simulated.used() == {version}
    assert sum(each.state == "running" for each in simulated.all()) == 10
    assert database.copy is None
    assert journal.read(project) is None


@pytest.mark.parametrize("migrates", [False, True])
def test_upgrade_ends_with_the_new_version_everywhere(stack, simulated, database, migrates):
    run(stack, migrates=migrates)
    assert_runs(stack, simulated, database, "new")


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize(
    ("migrates", "step"), [*((False, name) for name in ROLLING), *((True, name) for name in MIGRATING)]
)
def test_failed_step_ends_with_the_old_version_everywhere(
    stack, simulated, database, monkeypatch, migrates, step, afterwards
):
    fail_in(monkeypatch, step, StackError("cannot do it: full disk", where="here"), afterwards=afterwards)
    with pytest.raises(StackError, match=rf"{step}: cannot do it: full disk; \d+ s later the version before") as error:
        run(stack, migrates=migrates)
    assert error.value.where == "here"
    assert_runs(stack, simulated, database, "old")
    assert database.content == "old"
    assert revision.current(stack.root) == "main"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")])
def test_interrupt_and_unexpected_errors_return_too(stack, simulated, database, monkeypatch, error):
    fail_in(monkeypatch, "migrate the database and start", error, afterwards=True)
    with pytest.raises(StackError, match="the version before runs again"):
        run(stack, migrates=True)
    assert_runs(stack, simulated, database, "old")


@pytest.mark.parametrize("step", MIGRATING)
def test_killed_upgrade_is_reverted_by_the_next_one(stack, simulated, database, monkeypatch, step):
    """The process ends without a return, as by SIGKILL."""
    fail_in(monkeypatch, step, SystemExit(), afterwards=True)
    with pytest.raises(SystemExit):
        run(stack, migrates=True)
    with pytest.raises(StackError, match="has not ended"):
        journal.refuse_unfinished(stack, "up")
    course.go_back(stack, lambda _: None)
    assert_runs(stack, simulated, database, "old")
    assert database.content == "old"


def test_interrupted_return_is_completed_by_the_next_one(stack, simulated, database, monkeypatch):
    fail_in(monkeypatch, "verify", StackError("no"), afterwards=False)
    with monkeypatch.context() as patched:
        patched.setattr(
            course, "verify_pipeline", lambda *_: (_ for _ in ()).throw(StackError("not healthy", hint="x"))
        )
        with pytest.raises(StackError, match="cannot return to the version before: not healthy") as error:
            run(stack, migrates=True)
    assert error.value.hint == "x; then run ./ops/stack upgrade, which tries again"
    course.go_back(stack, lambda _: None)
    assert_runs(stack, simulated, database, "old")
    assert database.content == "old"


def test_copy_of_an_earlier_upgrade_never_replaces_the_database(stack, simulated, database, monkeypatch):
    database.copy = "long ago"
    fail_in(monkeypatch, "replace containers one at a time", StackError("no"), afterwards=False)
    with pytest.raises(StackError):
        run(stack, migrates=False)
    assert database.content == "old"


@pytest.mark.parametrize("migrates", [False, True])
def test_alerts_are_silenced_only_while_airflow_stops(stack, database, monkeypatch, migrates):
    events: list[str] = []

    @contextmanager
    def silenced(settings, longest, command, report):
        assert settings["SECRETS_DIR"] == str(stack.secrets), "the code of the new version runs in another folder"
        assert longest.total_seconds() == 3600 + 2 * 600
        events.append("silence")
        try:
            yield
        finally:
            events.append(database.content)

    monkeypatch.setattr(course, "silenced_alerts", silenced)
    fail_in(monkeypatch, "verify", StackError("no"), afterwards=True)
    with pytest.raises(StackError):
        run(stack, migrates=migrates)
    assert events == (["silence", "old"] if migrates else [])
