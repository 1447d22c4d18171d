"""Where a repository is read from, and with what."""

from __future__ import annotations

import subprocess

import pytest

from ops import compose, secrets_store, settings_file
from ops.backup import repository
from ops.backup.repository import DATABASE_USER, FILES_USER, Repository
from ops.errors import StackError
from ops.project import ROOT, Project

SOURCE = Repository("volume", "image", "configuration", "passphrase")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setattr(compose, "docker", lambda *_: "airflow-ha_backup-repository\n")
    project = Project(ROOT, tmp_path)
    secrets_store.generate(project)
    return project


def test_the_repository_is_the_volume_of_the_stack_or_a_folder(project, tmp_path):
    settings = settings_file.defaults(project)
    assert repository.of_stack(project, settings, "image").source == "airflow-ha_backup-repository"
    folder = settings | {"BACKUP_FOLDER": str(tmp_path)}
    assert repository.of_stack(project, folder, "image").source == str(tmp_path)


@pytest.mark.parametrize("setting", [{"COMPOSE_PROJECT_NAME": "another"}, {"BACKUP_FOLDER": "/nowhere"}])
def test_a_repository_that_does_not_exist_is_refused(project, setting):
    with pytest.raises(StackError, match="does not exist"):
        repository.of_stack(project, settings_file.defaults(project) | setting, "image")


def test_the_passphrase_is_on_no_command_line():
    for user in (DATABASE_USER, FILES_USER):
        line = repository.command_line(SOURCE, user, ["engine"])
        assert not {"passphrase", "configuration"} & set(line)
        assert "--volume=volume:/var/lib/backup:ro" in line, "an engine that reads cannot change the repository"


def test_an_engine_gets_its_configuration_also_when_it_is_slow(monkeypatch):
    monkeypatch.setattr(repository, "REPORT_SECONDS", 0.2)
    script = ["sh", "-c", "sleep 0.5; cat"]
    monkeypatch.setattr(repository, "command_line", lambda *_: script)
    seconds: list[float] = []
    result = repository.run(SOURCE, FILES_USER, "engine", report=seconds.append)
    assert (result.returncode, result.stdout) == (0, b"passphrase")
    assert seconds


def test_an_engine_that_hangs_is_killed_with_its_container(monkeypatch):
    killed: list[str] = []
    monkeypatch.setattr(repository, "REPORT_SECONDS", 0.1)
    monkeypatch.setattr(repository, "command_line", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(compose, "docker", lambda command, name: killed.append(command) or name)
    with pytest.raises(StackError, match=r"run engine beside the backups: no answer in 0 s"):
        repository.run(SOURCE, FILES_USER, "engine", seconds=0.2)
    assert killed == ["kill"]


def test_a_failed_engine_is_quoted_by_its_last_lines():
    result = subprocess.CompletedProcess([], 1, b"", b"\n".join(b"line %d" % number for number in range(20)))
    error = repository.failure("cannot restore", result, "fix it")
    assert "line 19" in error.what
    assert "line 3" not in error.what
