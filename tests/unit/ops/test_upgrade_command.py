"""`upgrade` starts the code of the new version, checks before a change, and reverts an upgrade that was killed."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.backup.sets import BackupSet, Contents, Verification
from ops.errors import StackError
from ops.project import ROOT, Project
from ops.upgrade import course, journal, revision, safety_backup
from ops.upgrade.course import Upgrade
from ops.upgrade.journal import Journal
from tests.unit.ops.git_checkout import checkout, git

__all__ = ["checkout"]

# By its module's name: ops.commands.upgrade as an attribute is the function.
import ops.__main__

command = sys.modules["ops.commands.upgrade"]
assert ops.__main__


class Image:
    def __init__(self, reference: str) -> None:
        self.reference = reference


@pytest.fixture
def stack(project, monkeypatch):
    """A running stack, and what the command does with it; `migrates` is not empty where the schema changes."""
    done: list[object] = []
    settings = {"COMPOSE_PROJECT_NAME": "airflow-ha", "COMPOSE_PROFILES": "data", "POSTGRES_IMAGE": "postgres-old"}
    migrates: list[bool] = []

    def check(stack, settings, version, files):
        done.append(("check", stack.root, version, files))
        return Upgrade(stack, version, {"POSTGRES_IMAGE": Image("postgres-old")}, bool(migrates), print)

    monkeypatch.setattr(command, "current_project", lambda: project)
    monkeypatch.setattr(command, "running_settings", lambda _: settings)
    monkeypatch.setattr(command, "preflight_checks", check)
    monkeypatch.setattr(course, "run", lambda upgrade, record: done.append(("run", record.version, record.target)))
    monkeypatch.setattr(course, "go_back", lambda *_: done.append("back") or 7.0)
    monkeypatch.setattr(safety_backup, "make", lambda _: done.append("backup"))
    return done, settings, migrates


def test_checkout_as_it_is_is_upgraded_without_a_switch(stack):
    done, _, _ = stack
    command.upgrade(to="", without_backup=False, checkout=None)
    assert done == [("check", ROOT, "", ROOT), ("run", "", "this checkout")]


def test_code_of_the_new_version_checks_and_upgrades(stack, checkout, tmp_path):
    done, _, _ = stack
    command.upgrade(to="new", without_backup=False, checkout=checkout)
    version = git(checkout, "rev-parse", "new")
    assert done == [("check", checkout, version, ROOT), ("run", "main", "new")]


@pytest.mark.parametrize(
    ("profiles", "without_backup", "expected"),
    [("data,backup", False, ["backup"]), ("data", True, []), ("data,backup", True, [])],
)
def test_migration_is_preceded_by_a_backup(stack, profiles, without_backup, expected):
    done, settings, migrates = stack
    settings["COMPOSE_PROFILES"] = profiles
    migrates.append(True)
    command.upgrade(to="", without_backup=without_backup, checkout=None)
    assert done[1:-1] == expected


NOW = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)
RECENT = BackupSet("a", "incr", NOW, NOW - timedelta(minutes=59), 1, 1, files="f", timeline=2)


@pytest.mark.parametrize(
    ("newest", "database", "is_recent"),
    [
        (RECENT, "7|2", True),
        (replace(RECENT, stopped=NOW - timedelta(minutes=61)), "7|2", False),
        (replace(RECENT, files=""), "7|2", False),
        (replace(RECENT, is_damaged=True), "7|2", False),
        (replace(RECENT, verification=Verification(NOW, ("damage",))), "7|2", False),
        (RECENT, "8|2", False),
        (RECENT, "7|3", False),
    ],
)
def test_recent_backup_must_be_complete_and_of_this_database(project, monkeypatch, newest, database, is_recent):
    settings = {"COMPOSE_PROJECT_NAME": "airflow-ha", "BACKUP_IMAGE": "backup"}
    monkeypatch.setattr(safety_backup.repository, "of_stack", lambda *_: None)
    monkeypatch.setattr(safety_backup.repository, "contents", lambda _: Contents((newest,), "7"))
    monkeypatch.setattr(safety_backup.compose, "instances", lambda _: {})
    monkeypatch.setattr(safety_backup.data_tier, "writable_postgres", lambda _: "postgres")
    monkeypatch.setattr(safety_backup.data_tier, "ask", lambda *_: database)
    assert safety_backup.is_recent(project, settings, 60, print, NOW) == is_recent
    assert not safety_backup.is_recent(project, settings, 0, print, NOW), "by default one is made"


@pytest.mark.parametrize(("is_recent", "expected"), [(True, []), (False, ["backup"])])
def test_recent_backup_takes_the_place_of_a_new_one(stack, monkeypatch, is_recent, expected):
    done, settings, migrates = stack
    settings["COMPOSE_PROFILES"] = "data,backup"
    migrates.append(True)
    monkeypatch.setattr(
        safety_backup, "is_recent", lambda _project, _settings, minutes, *_: minutes == 60 and is_recent
    )
    command.upgrade(to="", without_backup=False, backup_within=60, checkout=None)
    assert done[1:-1] == expected


def test_migration_without_a_backup_changes_nothing(stack):
    done, _, migrates = stack
    migrates.append(True)
    with pytest.raises(StackError, match="without a backup"):
        command.upgrade(to="", without_backup=False, checkout=None)
    assert len(done) == 1


def test_killed_upgrade_is_reverted_before_anything_else(stack, project):
    done, _, _ = stack
    project.env_file.write_text("A=1\n")
    project.generated.mkdir()
    journal.begin(project, Journal("main", "v2", "yesterday"))
    with pytest.raises(StackError, match="reverted: the version before runs again after 7 s"):
        command.upgrade(to="", without_backup=False, checkout=None)
    assert done == ["back"]


def test_new_version_is_started_in_a_folder_of_its_own(project, checkout, monkeypatch):
    """Its commit has the command, and the uv of this checkout is copied."""
    for folder in ("ops/commands", ".bootstrap/bin"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "ops/commands/upgrade.py").touch()
    (checkout / ".gitignore").write_text("/.bootstrap/\n")
    (checkout / ".bootstrap/bin/uv").touch()
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "newer")
    git(checkout, "tag", "newer")
    started: list[list[str]] = []
    monkeypatch.setattr(command.os, "execv", lambda path, arguments: started.append(arguments))
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    command.run_new_version(Project(checkout, project.state), "newer", ["--without-backup"])
    folder = project.state / "upgrade/files"
    options = ["--to", "newer", "--checkout", str(checkout), "--without-backup"]
    assert started == [[str(folder / "ops/stack"), "upgrade", *options]]
    assert (folder / ".bootstrap/bin/uv").exists()
    assert command.os.environ["STACK_STATE_DIR"] == str(project.state)
    assert "PYTHONPATH" not in command.os.environ
    assert revision.current(checkout) == "main"


def test_new_dags_are_those_of_the_new_version_and_the_operators_own(project, checkout, tmp_path):
    (checkout / "dags").mkdir()
    for name in ("removed", "changed"):
        (checkout / f"dags/{name}.py").write_text("old")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "dags")
    (checkout / "dags/own.py").write_text("own")
    files = tmp_path / "files"
    (files / "dags").mkdir(parents=True)
    (files / "dags/changed.py").write_text("new")
    (project.state / "unused").mkdir()
    settings = {"DAGS_DIR": str(checkout / "dags")}
    with command.new_dags(Project(checkout, project.state), settings, files) as dags:
        assert {path.name: path.read_text() for path in dags.iterdir()} == {"changed.py": "new", "own.py": "own"}
        assert dags.stat().st_mode & 0o005 == 0o005
    with command.new_dags(Project(checkout, project.state), {"DAGS_DIR": str(tmp_path)}, files) as dags:
        assert dags == tmp_path
