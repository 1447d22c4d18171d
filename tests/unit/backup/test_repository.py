"""Where a repository is read from, and with what."""

from __future__ import annotations

import json
import subprocess

import pytest

from ops import backup_storage, compose, secrets_store, settings_file
from ops.backup import repository
from ops.backup.repository import FILES_USER, Repository
from ops.errors import StackError
from ops.project import ROOT, Project

ENVIRONMENTS = {"local": {"RESTIC_PASSWORD": "it's"}, "s3": {"RESTIC_PASSWORD": "other"}}
SOURCE = Repository("volume", "image", "repo1-path=a\nrepo2-path=b\n", ENVIRONMENTS)
S3 = {"BACKUP_STORAGE": "local,s3", "BACKUP_S3_ENDPOINT": "s3.test", "BACKUP_S3_BUCKET": "bucket"}


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


def test_without_the_local_storage_the_other_is_read(project):
    for name in (backup_storage.KEY, backup_storage.KEY_SECRET):
        (project.secrets / name).write_text("text\n")
    settings = settings_file.defaults(project) | S3
    assert repository.of_stack(project, settings, "image").storages == ("local", "s3")
    found = repository.of_stack(project, settings | {"BACKUP_FOLDER": "/nowhere"}, "image")
    assert (found.storages, found.source) == (("s3",), "")
    assert "repo1" not in found.configuration


def test_an_engine_has_no_secret_on_its_command_line_and_a_route_only_to_s3():
    line = repository.command_line(SOURCE, ["engine"])
    assert not any("it's" in each or "repo1" in each for each in line)
    assert "--volume=volume:/var/lib/backup:ro" in line, "an engine that reads cannot change the repository"
    assert "--network=bridge" in line
    assert "--network=none" in repository.command_line(SOURCE.only("local"), ["engine"])


def test_an_engine_reads_the_files_of_its_storage(tmp_path):
    s3 = SOURCE.only("s3")
    assert s3.configuration == "repo2-path=b\n"
    for source, password in ((SOURCE, "it's"), (s3, "other")):
        (tmp_path / "files.tar").write_bytes(repository.files_of(source, FILES_USER))
        script = f'tar -xf {tmp_path}/files.tar -C {tmp_path}; . {tmp_path}/environment; printf %s "$RESTIC_PASSWORD"'
        assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == password


def test_an_engine_gets_its_configuration_also_when_it_is_slow(monkeypatch):
    monkeypatch.setattr(repository, "REPORT_SECONDS", 0.2)
    script = ["sh", "-c", "sleep 0.5; wc -c"]
    monkeypatch.setattr(repository, "command_line", lambda *_: script)
    seconds: list[float] = []
    result = repository.run(SOURCE, FILES_USER, "engine", report=seconds.append)
    assert (result.returncode, int(result.stdout)) == (0, len(repository.files_of(SOURCE, FILES_USER)))
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


def answer(code: int, message: str) -> subprocess.CompletedProcess[bytes]:
    stanza = {"repo": [{"status": {"code": code, "message": message}}], "db": [], "backup": []}
    return subprocess.CompletedProcess([], 0, json.dumps([stanza]).encode(), b"")


AWAY = subprocess.CompletedProcess([], 124, b"", b"")


@pytest.mark.parametrize(
    ("result", "where"),
    [
        (answer(99, "<Code>NoSuchBucket</Code>"), "BACKUP_S3_BUCKET"),
        (answer(99, "<Code>SignatureDoesNotMatch</Code>"), "backup_s3_key_secret"),
        (answer(99, "[CryptoError] unable to flush"), "backup_passphrase"),
        (AWAY, "BACKUP_S3_ENDPOINT"),
    ],
)
def test_settings_that_the_s3_server_refuses_end_up(project, monkeypatch, result, where):
    for name in (backup_storage.KEY, backup_storage.KEY_SECRET):
        (project.secrets / name).write_text("text\n")
    settings = settings_file.defaults(project) | S3 | {"COMPOSE_PROFILES": "data,backup"}
    monkeypatch.setattr(repository, "run", lambda *_: result)
    with pytest.raises(StackError) as error:
        repository.check_s3(project, settings, "image", is_running=False)
    assert where in error.value.where
    assert repository.check_s3(project, settings | {"BACKUP_STORAGE": "local"}, "image", is_running=False) == ""


def test_a_running_stack_continues_while_the_s3_server_is_down(project, monkeypatch):
    for name in (backup_storage.KEY, backup_storage.KEY_SECRET):
        (project.secrets / name).write_text("text\n")
    settings = settings_file.defaults(project) | S3 | {"COMPOSE_PROFILES": "data,backup"}
    monkeypatch.setattr(repository, "run", lambda *_: AWAY)
    assert "timeout" in repository.check_s3(project, settings, "image", is_running=True)
    monkeypatch.setattr(repository, "run", lambda *_: answer(1, "missing stanza path"))
    assert repository.check_s3(project, settings, "image", is_running=True) == ""
