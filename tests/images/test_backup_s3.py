"""The profile `backup` with a volume and an S3 bucket, as the compose files run it, without Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops import backup_config, compose, secrets_store, settings_file
from ops.backup import creation, repository, restoration, restored_database, saved_files
from ops.backup.repository import Repository
from ops.backup.restoration import Restoration
from ops.backup.sets import choose
from ops.errors import StackError
from ops.project import Project
from tests.images.conftest import ROOT, Answer, docker
from tests.images.test_backup import SCHEMA, SERVICES, backup_project, container, contents, metrics, query, wait
from tests.s3_server import S3Server, new_authority, s3_server

# Four to six minutes; test_backup covers the same with one storage in every run.
pytestmark = pytest.mark.nightly

BOTH = ("local", "s3")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def project(images, tmp_path_factory, server) -> Iterator[Project]:
    """A Postgres whose backups go to both storages; at most three segments of its log wait."""
    state, profiles = tmp_path_factory.mktemp("state"), "data,backup,backup-data"
    settings = {"BACKUP_STORAGE": "local,s3", "BACKUP_WAL_LIMIT": "48MiB", **server.settings()}
    with backup_project(state, images, profiles, SERVICES, settings, server.secrets()) as project:
        yield project


@pytest.fixture
def settings(project) -> dict[str, str]:
    return settings_file.read(project)


def place(project, settings) -> Repository:
    return repository.of_stack(project, settings, settings["BACKUP_IMAGE"])


def newest_log(settings, storage: str) -> str:
    """Return the last segment of the log in a storage."""
    number = {"local": 1, "s3": 2}[storage]
    answer = docker(
        *("exec", container(settings, "backup"), "pgbackrest", "info", "--output=json", f"--repo={number}"), seconds=60
    )
    (stanza,) = json.loads(answer.output)
    return stanza["archive"][-1]["max"]


def write_log(settings, segments: int = 1) -> str:
    """Finish segments of the log, and return the last one."""
    for _ in range(segments):
        segment = query(settings, "SELECT pg_walfile_name(pg_current_wal_lsn()) FROM pg_current_xact_id()")
        query(settings, "SELECT pg_switch_wal()")
    return segment


@pytest.fixture(autouse=True)
def stored(project, settings) -> None:
    """Each storage has a set."""

    def is_stored() -> bool:
        try:
            sets = contents(project, settings).sets
        except StackError:
            return False
        return {each.storage for each in sets if each.files} == set(BOTH)

    wait(is_stored, 180)


def test_each_storage_gets_a_set_and_the_log(settings):
    for storage in BOTH:
        series = f'airflow_ha_backup_repository_up{{repository="{storage}"}}'
        assert metrics(settings, "backup")[series] == 1.0
    segment = write_log(settings)
    wait(lambda: all(newest_log(settings, storage) >= segment for storage in BOTH))


def test_a_frozen_server_does_not_keep_the_log_from_the_volume(settings, server):
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    with server.frozen():
        segment = write_log(settings)
        wait(lambda: newest_log(settings, "local") >= segment, 120)
        series = 'airflow_ha_backup_repository_up{repository="s3"}'
        wait(lambda: metrics(settings, "backup")[series] == 0.0, 120)
        assert metrics(settings, "backup")[series.replace("s3", "local")] == 1.0
        segment = write_log(settings, 8)
        wait(lambda: newest_log(settings, "local") >= segment, 180)
        wait(lambda: int(query(settings, waiting)) <= 3, 180)
    wait(lambda: newest_log(settings, "s3") >= segment, 180)
    wait(lambda: query(settings, waiting) == "0", 180)


def test_a_backup_now_is_in_both_storages(project, settings):
    creation.make(settings, print)
    for storage in BOTH:
        newest = [each for each in contents(project, settings).sets if each.storage == storage][-1]
        assert (newest.kind, bool(newest.files)) == ("incr", True)


def test_a_restore_from_each_storage_is_verified(project, settings):
    query(settings, SCHEMA)
    creation.make(settings, print)

    def verified() -> set[str]:
        sets = contents(project, settings).sets
        return {each.storage for each in sets if each.verification and not each.verification.problems}

    wait(lambda: verified() == set(BOTH), 240)


def test_files_need_no_request_for_each_folder(project, settings, server):
    """An S3 server answers in some 30 ms, and each try of a task has a folder of its own."""
    folders, name = 400, settings["COMPOSE_PROJECT_NAME"]

    def in_logs(stack: str, script: str) -> Answer:
        volume, image = f"--volume={stack}_airflow-logs:/logs", settings["BACKUP_IMAGE"]
        return docker("run", "--rm", "--user=0", volume, "--workdir=/logs", "--entrypoint=sh", image, "-c", script)

    script = f"for i in $(seq {folders}); do mkdir $i; echo $i >$i/attempt=1.log; done; chown -R 50000:0 ."
    assert in_logs(name, script).status == 0
    creation.make(settings, print)
    newest = [each for each in contents(project, settings).sets if each.storage == "s3"][-1]
    before = server.requests()
    creation.make(settings, print)
    assert server.requests() - before < folders / 2, "a backup reads the folders of the one before"
    before = server.requests()
    source = place(project, settings).only("s3")
    saved_files.restore_volumes(source, newest.files, f"{name}-copy", settings["AIRFLOW_IMAGE"], print)
    assert server.requests() - before < folders / 2
    assert int(in_logs(f"{name}-copy", "ls | wc -l").output) >= folders
    for each in saved_files.VOLUMES:
        compose.docker("volume", "rm", f"{name}-copy_{each}")


def wrong(place: Repository, old: str, new: str) -> Repository:
    return replace(place, configuration=place.configuration.replace(old, new))


def test_a_wrong_setting_is_named_and_the_volume_is_still_read(project, settings, server):
    both = place(project, settings)
    s3 = both.only("s3")
    cases = {
        "BACKUP_S3_BUCKET": wrong(s3, "s3-bucket=backups", "s3-bucket=other"),
        "backup_s3_key:": wrong(s3, server.key, "unknown"),
        "backup_s3_key_secret": wrong(s3, server.key_secret, "wrong"),
        "backup_s3_ca.pem": replace(s3, authority=new_authority()[1].decode()),
        "BACKUP_S3_ENDPOINT": wrong(s3, server.endpoint, "172.17.0.1:9"),
    }
    for name, repositories in cases.items():
        with pytest.raises(StackError) as error:
            repository.contents(repositories)
        assert name in error.value.where, error.value.what
    listed = repository.contents(replace(both, authority=new_authority()[1].decode()))
    assert {each.storage for each in listed.sets} == {"local"}
    assert set(listed.problems) == {"s3"}


@pytest.fixture
def empty_machine(images, project, tmp_path, server) -> Iterator[Project]:
    """A stack with nothing but the passphrase and the log-in to S3."""
    new = Project(ROOT, tmp_path)
    settings = settings_file.read(project)
    settings |= {"COMPOSE_PROJECT_NAME": f"{settings['COMPOSE_PROJECT_NAME']}-new", "BACKUP_STORAGE": "s3"}
    settings |= {key: value for key, value in settings_file.defaults(new).items() if key.endswith("_DIR")}
    new.secrets.mkdir()
    passphrase = secrets_store.read(project, backup_config.PASSPHRASE)
    for name, text in {**server.secrets(), backup_config.PASSPHRASE: passphrase}.items():
        (new.secrets / name).write_text(f"{text}\n")
        (new.secrets / name).chmod(0o600)
    settings_file.write(new, settings)
    yield new
    compose.output(new, "--profile=*", "down", "--volumes", "--timeout=5")


def test_s3_alone_restores_an_empty_machine(project, settings, empty_machine: Project):
    query(settings, "CREATE TABLE past AS SELECT 7 AS n")
    segment = write_log(settings)
    wait(lambda: newest_log(settings, "s3") >= segment)

    new = settings_file.read(empty_machine)
    source = repository.of_stack(empty_machine, new, settings["BACKUP_IMAGE"])
    assert (source.storages, source.source) == (("s3",), "")
    chosen = choose(repository.contents(source).sets, None, None, datetime.now(UTC))
    plan = Restoration(empty_machine, new, source, chosen, None, is_exact=False, report=print)
    assert restoration.current_database(plan) == ""
    restoration.restore_database(plan)
    saved_files.restore_secrets(empty_machine, source, chosen.files)
    for name in ("fernet_key", "postgres_superuser_password"):
        assert secrets_store.read(empty_machine, name) == secrets_store.read(project, name)

    plan.in_volume(plan.tier.restored, restored_database.SWITCH)
    secrets_store.generate(empty_machine)
    secrets_store.mount(empty_machine, new, new["AIRFLOW_IMAGE"])
    for folder in (empty_machine.state, *empty_machine.state.parents):
        if str(folder).startswith("/tmp/"):
            Path(folder).chmod(folder.stat().st_mode | 0o055)
    compose.output(empty_machine, "up", "--detach", "--wait", "postgres")
    assert query(new, "SELECT n FROM past") == "7"
