"""The profile `backup` beside the replicated Postgres, as the compose files run it, without Airflow."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from ops import compose, data_tier, settings_file
from ops.backup import creation, repository, restoration
from ops.backup.restoration import Restoration
from ops.backup.sets import BackupSet, choose
from ops.errors import StackError
from ops.project import Project
from ops.services import BACKUP_NODES, ETCD_NODES, POSTGRES_NODES
from tests.images.conftest import docker
from tests.images.test_backup import backup_project

# Three minutes; test_backup and test_restore cover the same on a single Postgres in every run.
pytestmark = pytest.mark.nightly

BACKUPS = (*BACKUP_NODES["data-ha"], "backup-files")


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """Two Patroni nodes with their backup services."""
    state = tmp_path_factory.mktemp("state")
    profiles = "data-ha,backup,backup-data-ha"
    with backup_project(state, images, profiles, (*ETCD_NODES, *POSTGRES_NODES, *BACKUPS)) as project:
        yield project


@pytest.fixture
def settings(project) -> dict[str, str]:
    return settings_file.read(project)


def wait(condition: Callable[[], object], seconds: float = 120) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(1)
    return value


def members(settings) -> dict[str, str]:
    """Return the role of each node that Patroni reaches."""
    name = settings["COMPOSE_PROJECT_NAME"]
    return {member["service"]: member["role"] for member in data_tier.members(name) if "patroni" in member["service"]}


def in_sync(settings) -> bool:
    return sorted(members(settings).values()) == ["primary", "sync replica"]


def primary(settings) -> str:
    return next(node for node, role in members(settings).items() if role == "primary")


def sets(project, settings) -> tuple[BackupSet, ...]:
    try:
        place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
        return repository.contents(place).sets
    except StackError:
        return ()


def query(settings, sql: str) -> str:
    container = data_tier.running(settings["COMPOSE_PROJECT_NAME"])[primary(settings)]
    result = data_tier.execute(container, "psql", "-U", "postgres", "-Atqc", sql, "airflow")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_only_the_service_beside_the_primary_backs_up(project, settings):
    wait(lambda: in_sync(settings))
    (first,) = wait(lambda: sets(project, settings), 180)
    assert first.kind == "full"


def test_a_backup_is_verified_beside_the_primary(project, settings):
    query(
        settings, "CREATE TABLE alembic_version AS SELECT 'a'::text AS version_num; CREATE TABLE dag AS SELECT 1 AS id"
    )
    label = creation.make(settings, print)
    newest = wait(lambda: next((each for each in sets(project, settings) if each.verification), None), 180)
    assert (newest.label, newest.rows, newest.verification.problems) == (label, {"dag": 1}, ())


def test_a_replica_without_data_is_built_from_the_backup(project, settings):
    query(settings, "CREATE TABLE since AS SELECT 1 AS n")
    replica = next(node for node, role in members(settings).items() if role == "sync replica")
    both = (replica, BACKUP_NODES["data-ha"][POSTGRES_NODES.index(replica)])
    compose.output(project, "rm", "--stop", "--force", *both)
    assert docker("volume", "rm", f"{settings['COMPOSE_PROJECT_NAME']}_{replica}-data").status == 0
    compose.output(project, "up", "--detach", "--wait", *both)
    wait(lambda: in_sync(settings))
    container = data_tier.running(settings["COMPOSE_PROJECT_NAME"])[replica]
    assert "replica has been created using pgbackrest" in docker("logs", container).output
    rows = data_tier.ask(container, "psql", "-U", "postgres", "-Atc", "SELECT count(*) FROM since", "airflow")
    assert rows == "1", "the log since the backup is there too"
    # Only the log since the backup comes from the storages: a failover never waits for one.
    kept = docker("exec", container, "ls", "/var/lib/postgresql/data/pgdata").output
    assert "built-from-backup" not in kept


def test_after_a_failover_the_other_service_backs_up(project, settings):
    wait(lambda: in_sync(settings))
    before, old = sets(project, settings), primary(settings)
    container = data_tier.running(settings["COMPOSE_PROJECT_NAME"])[old]
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container).output), signal.SIGKILL)
    wait(lambda: primary_or_none(settings) not in (None, old))
    wait(lambda: len(sets(project, settings)) > len(before), 180)
    wait(lambda: in_sync(settings))


def test_a_failover_during_a_backup_is_followed_by_another_one(project, settings):
    """The interrupted backup is in no list; the service beside the new primary makes one on its timeline."""
    wait(lambda: in_sync(settings))
    wait(lambda: sets(project, settings), 180)
    query(
        settings,
        "CREATE TABLE large AS SELECT md5(n::text) || repeat(md5((-n)::text), 8) FROM generate_series(1, 1500000) n",
    )
    before, old = sets(project, settings), primary(settings)
    service = BACKUP_NODES["data-ha"][POSTGRES_NODES.index(old)]
    running = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    full = [
        "docker",
        "exec",
        running[service][0].id,
        "python3",
        "/usr/local/lib/backup/backup_database.py",
        "now",
        "full",
    ]
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as backup:
        copying = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'"
        wait(lambda: query(settings, copying) != "0")
        node = data_tier.running(settings["COMPOSE_PROJECT_NAME"])[old]
        os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", node).output), signal.SIGKILL)
        _, reason = backup.communicate(timeout=300)
    assert backup.returncode == 1, "the backup was interrupted"
    assert "pgbackrest failed" in reason
    wait(lambda: primary_or_none(settings) not in (None, old))
    wait(lambda: set(sets(project, settings)) - set(before), 240)
    wait(lambda: in_sync(settings))


def primary_or_none(settings) -> str | None:
    return next((node for node, role in members(settings).items() if role == "primary"), None)


def planned(project, settings, at: datetime | None = None) -> Restoration:
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    chosen = choose(sets(project, settings), at, None, datetime.now(UTC))
    return Restoration(project, settings, place, chosen, at, is_exact=False, report=print)


def test_a_point_in_time_replaces_both_nodes(project, settings):
    query(settings, "CREATE TABLE past AS SELECT 1 AS n")
    time.sleep(1.1)
    at = datetime.now(UTC)
    time.sleep(1.1)
    query(settings, "INSERT INTO past VALUES (2)")
    plan = planned(project, settings, at)
    restoration.restore_database(plan)

    compose.output(project, "rm", "--stop", "--force", *ETCD_NODES, *POSTGRES_NODES, *BACKUPS)
    restoration.exchange(plan)
    compose.output(project, "up", "--detach", "--wait", plan.tier.primary)
    restoration.set_passwords(plan)
    restoration.start_archive(plan)
    restoration.finish(plan)
    compose.output(project, "up", "--detach", "--wait", *POSTGRES_NODES, *BACKUPS)
    wait(lambda: in_sync(settings))
    assert query(settings, "SELECT count(*) FROM past") == "1"


@pytest.mark.nightly
def test_a_stale_replica_does_not_lead_after_a_failed_restore(project, settings):
    wait(lambda: in_sync(settings))
    plan = planned(project, settings)
    restoration.restore_database(plan)
    leader = primary(settings)
    (stale,) = set(POSTGRES_NODES) - {leader}
    compose.output(project, "stop", stale)
    query(settings, "CREATE TABLE newest AS SELECT 1 AS n")
    compose.output(project, "rm", "--stop", "--force", *ETCD_NODES, *POSTGRES_NODES, *BACKUPS)
    restoration.exchange(plan)
    restoration.exchange_back(plan)
    compose.output(project, "up", "--detach", "--no-deps", *ETCD_NODES, stale)
    wait(lambda: members(settings) == {leader: "unknown", stale: "replica"})  # the leader's lock has expired
    compose.output(project, "up", "--detach", "--wait", *POSTGRES_NODES)
    wait(lambda: in_sync(settings))
    assert query(settings, "SELECT count(*) FROM newest") == "1"
