"""A backup that is made now, and what it reports of a storage that cannot take it."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from ops import compose, data_tier
from ops.backup import creation
from ops.compose import Instance
from ops.errors import StackError

SETTINGS = {"COMPOSE_PROJECT_NAME": "airflow-ha", "COMPOSE_PROFILES": "data,backup"}


@pytest.fixture
def engines(monkeypatch) -> dict[str, CompletedProcess[str]]:
    """What each program answers, by its name and storage."""
    nodes = {name: [Instance(name, "running", "healthy", 0.0)] for name in ("backup", "backup-files")}
    answers: dict[str, CompletedProcess[str]] = {}

    def execute(_: str, *command: str, **_options: object) -> CompletedProcess[str]:
        program = command[1].rpartition("/")[2]
        return answers[" ".join((program, *command[3:4]))]

    monkeypatch.setattr(compose, "instances", lambda _: nodes)
    monkeypatch.setattr(data_tier, "execute", execute)
    return answers


def ended(code: int = 0, output: str = "", error: str = "") -> CompletedProcess[str]:
    return CompletedProcess((), code, output, error)


def test_storage_that_is_full_is_named_and_the_other_gets_its_files(engines):
    engines["backup_database.py"] = ended(1, "s3 label\n", "local: pgbackrest failed: [28] No space left on device\n")
    engines["backup_files.py s3"] = ended()
    lines: list[str] = []
    with pytest.raises(StackError, match=r"local: .*No space left") as error:
        creation.make(SETTINGS, lines.append)
    assert "BACKUP_KEEP" in error.value.hint
    assert lines[-1].startswith("s3: label")


def test_reason_of_each_storage_is_reported(engines):
    engines["backup_database.py"] = ended(1, "", "local: Read-only file system\nerror: log\ns3: NoSuchBucket\n")
    with pytest.raises(StackError) as error:
        creation.make(SETTINGS, print)
    assert "local: Read-only file system; s3: NoSuchBucket" in error.value.what


def test_files_that_fail_in_one_storage_do_not_end_the_others(engines):
    engines["backup_database.py"] = ended(0, "local a\ns3 b\n")
    engines["backup_files.py local"] = ended(1, "", "restic failed: read-only file system")
    engines["backup_files.py s3"] = ended()
    lines: list[str] = []
    with pytest.raises(StackError, match="the files in local"):
        creation.make(SETTINGS, lines.append)
    assert lines[-1].startswith("s3: b")
