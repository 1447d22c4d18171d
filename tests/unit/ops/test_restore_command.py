"""What `restore` refuses before it changes anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ops import backup_config, secrets_store
from ops.project import Project
from tests.unit.stack_fakes import container, run

STOPPED = datetime.now(UTC) - timedelta(hours=1)
CHANGES = ("down", "up", "stop", "rm", "volume create")
"""The commands of Docker that would change something."""


def information(code: int = 0, message: str = "ok") -> str:
    """Return what `pgbackrest info` prints of a repository with one backup, made an hour ago."""
    backup = {
        "label": "20261129-201659F",
        "type": "full",
        "timestamp": {"start": STOPPED.timestamp() - 1, "stop": STOPPED.timestamp()},
        "archive": {"start": "0000000A0000000000000003"},
        "info": {"size": 1, "repository": {"size": 1}},
        "database": {"id": 1},
    }
    backups = [] if code else [backup]
    repository = [{"status": {"code": code, "message": message}}]
    return json.dumps([{"repo": repository, "backup": backups, "db": [{"id": 1, "system-id": 7}]}])


@pytest.fixture
def stack(project: Project, docker) -> Project:
    """A stack with backups whose containers do not run."""
    project.env_file.write_text("BACKUP_IMAGE=image\nCOMPOSE_PROFILES=data,backup\n")
    secrets_store.generate(project)
    docker.answer("volume ls", out="airflow-ha_backup-repository\nairflow-ha_postgres-data\n")
    docker.answer("image ls", out="image\n")
    docker.answer("pgbackrest info", out=information())
    docker.answer("snapshots", out="[]")
    docker.answer("pg_controldata", out="Database system identifier: 7\n")
    docker.answer("df --output", out="Avail\n999999999999\n")
    return project


def refusal(project: Project, docker, *arguments: str) -> str:
    """Return the error of `restore`, which has changed nothing."""
    before = {path: path.read_bytes() for path in project.state.rglob("*") if path.is_file()}
    result = run("restore", *arguments)
    after = {path: path.read_bytes() for path in project.state.rglob("*") if path.is_file()}
    assert result.returncode == 2, result.stdout + result.stderr
    assert {path for path in after if path.name != ".lock"} == {path for path in before if path.name != ".lock"}
    assert all(after[path] == text for path, text in before.items() if path.name != ".lock")
    calls = [" ".join(call) for call in docker.calls()]
    assert not [call for call in calls if call.startswith(CHANGES) or " down" in call or " up" in call]
    assert "hint: " in result.stderr
    return result.stderr


def later(hours: float) -> str:
    return (STOPPED + timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--at", later(-1)), "the oldest backup was complete"),
        (("--at", later(25)), "in the future"),
        (("--at", "yesterday"), "not a time"),
        (("--backup", "another"), "none of this id"),
        (("--at", later(0.5), "--backup", "20261129-201659F"), "each names a target"),
        (("show", "--at", later(0.5)), "follows a restore"),
        (("forget", "a_dag"), "cannot restore 'forget a_dag'"),
        (("forget",), "does not run"),
        (("--to-new-stack", "Not A Name"), "cannot name the new stack"),
    ],
)
def test_wrong_arguments_are_refused(stack, docker, arguments, reason):
    assert reason in refusal(stack, docker, *arguments)


@pytest.mark.parametrize(
    ("part", "answer", "reason"),
    [
        ("volume ls", "", "their volume or folder does not exist"),
        ("pgbackrest info", information(99, "[FormatError] no header"), "made with another passphrase"),
        ("pgbackrest info", information(99, "[PathOpenError] Permission denied"), "Permission denied"),
        ("pgbackrest info", information(2, "no valid backups"), "the repository has none"),
        ("pg_controldata", "Database system identifier: 8\n", "of another database"),
        ("df --output", "Avail\n0\n", "GiB of disk space are required"),
    ],
)
def test_unusable_backups_are_refused(stack, docker, part, answer, reason):
    docker.answer(part, out=answer)
    assert reason in refusal(stack, docker, "--yes")


def test_without_the_passphrase_nothing_is_read(stack, docker):
    (stack.secrets / backup_config.PASSPHRASE).unlink()
    assert "passphrase is missing" in refusal(stack, docker, "--yes")
    assert not [call for call in docker.calls() if "pgbackrest" in call]


def test_external_postgres_is_refused(stack, docker):
    stack.env_file.write_text("BACKUP_IMAGE=image\nCOMPOSE_PROFILES=flower\n")
    assert "Postgres is external" in refusal(stack, docker, "--yes")


def test_a_machine_without_a_key_and_a_backup_without_files_are_refused(stack, docker):
    (stack.secrets / "fernet_key").unlink()
    assert "no Fernet key" in refusal(stack, docker, "--yes")


def test_without_a_terminal_and_a_confirmation_nothing_is_replaced(stack, docker):
    assert "--yes" in refusal(stack, docker)


def test_a_database_that_a_killed_restore_needs_is_kept(stack, docker):
    docker.answer("unfinished", out="unfinished")
    docker.answer_containers(container("postgres", 1, health="healthy"))
    assert "the restore has not ended" in refusal(stack, docker, "forget", "--yes")
    assert not [call for call in docker.calls() if "rm -rf" in " ".join(call)]
