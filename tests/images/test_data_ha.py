"""The profile `data-ha` as the compose files run it, without Airflow: formation, access, failover."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable

import pytest

from ops import compose, data_tier, secrets_store, settings_file
from ops.data_tier import is_healthy
from ops.failover import switch_postgres, switch_redis
from ops.project import Project
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS
from tests.images.conftest import ROOT, docker

ETCD = ("etcd-1", "etcd-2", "etcd-3")
WHO_IS_THE_PRIMARY = """
import json
from pathlib import Path
import sqlalchemy
from kombu import Connection
from airflow_ha.patches import close_stale_broker_connections as broker
from airflow_ha.patches import close_stale_primary_connections as database
secret = {name: Path("/run/secrets", name).read_text().strip() for name in (
    "sql_alchemy_conn", "celery_broker_url", "celery_sentinel_kwargs")}
postgres = database.postgres_primary(database.nodes_of(sqlalchemy.create_engine(secret["sql_alchemy_conn"])))
options = {"master_name": "airflow", "sentinel_kwargs": json.loads(secret["celery_sentinel_kwargs"])}
pool = Connection(secret["celery_broker_url"], transport_options=options).default_channel.pool
print(postgres, broker.redis_primary(pool.sentinel_manager, "airflow"))
"""


@pytest.fixture(scope="module")
def tier(images, tmp_path_factory):
    """A running data tier, without Airflow."""
    project = Project(ROOT, tmp_path_factory.mktemp("state"))
    name = f"airflow-ha-test-{uuid.uuid4().hex[:8]}"
    settings = settings_file.read(project) | {"COMPOSE_PROJECT_NAME": name, "COMPOSE_PROFILES": "data-ha"}
    settings |= {key: image.reference for key, image in images.items()}
    secrets_store.generate(project)
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    settings_file.write(project, settings)
    started = time.monotonic()
    try:
        compose.output(project, "up", "--detach", "--wait", *ETCD, *POSTGRES_NODES, *REDIS_NODES, *SENTINELS)
        seconds = time.monotonic() - started
        yield {"project": project, "name": name, "seconds": seconds, "airflow": settings["AIRFLOW_IMAGE"]}
    finally:
        compose.output(project, "--profile=*", "down", "--volumes", "--timeout=5")


def primary(name: str, nodes: tuple[str, ...]) -> str | None:
    members = [member for member in data_tier.members(name) if member["service"] in nodes]
    primaries = [member["service"] for member in members if member["role"] == "primary"]
    return primaries[0] if len(primaries) == 1 else None


def all_in_sync(name: str) -> bool:
    members = data_tier.members(name)
    roles = [member["role"] for member in members if member["service"] in POSTGRES_NODES]
    return all(map(is_healthy, members)) and sorted(roles) == ["primary", "sync replica"]


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit, f"the condition is false after {limit} s"
        time.sleep(0.2)
    return time.monotonic() - started


def sql(name: str, node: str, statement: str) -> str | None:
    container = data_tier.running(name).get(node)
    return container and data_tier.ask(container, "psql", "-U", "postgres", "-qAtc", statement)


def kill(name: str, node: str) -> None:
    """Crash the main process: after `docker kill`, Docker does not restart the container."""
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", data_tier.running(name)[node]).output), signal.SIGKILL)


def test_a_new_data_tier_is_ready_within_a_minute(tier):
    assert tier["seconds"] < 60
    seconds_until(lambda: all_in_sync(tier["name"]), 20)


def test_replication_is_synchronous_with_the_usual_settings(tier):
    node = primary(tier["name"], POSTGRES_NODES)
    assert node
    settings = "SELECT current_setting('synchronous_standby_names') <> '', current_setting('data_checksums')"
    assert sql(tier["name"], node, settings) == "t|on"
    assert sql(tier["name"], node, "SELECT current_setting('max_connections')") == "600"
    databases = sql(tier["name"], node, "SELECT datname FROM pg_database WHERE datname !~ '^(template|postgres)'")
    assert sorted((databases or "").split()) == ["airflow", "celery_results"]


def test_the_data_tier_refuses_access_without_a_password(tier):
    etcd = docker("exec", compose.instances(tier["name"])["etcd-1"][0].id, "etcdctl", "get", "--prefix", "/service")
    assert etcd.status != 0
    assert "user name is empty" in etcd.output
    ask = (
        "import urllib.request as r, urllib.error as e\n"
        "try: r.urlopen(r.Request('http://127.0.0.1:8008/restart', method='POST', data=b'{}'))\n"
        "except e.HTTPError as error: print(error.code)"
    )
    assert data_tier.ask(data_tier.running(tier["name"])["patroni-1"], "python3", "-c", ask) == "401"
    sentinel = data_tier.running(tier["name"])["sentinel-1"]
    answer = data_tier.ask(sentinel, "redis-cli", "-p", "26379", "sentinel", "masters")
    assert answer is not None
    assert answer.startswith("NOAUTH")


def test_an_airflow_container_finds_both_primaries(tier):
    project, name = tier["project"], tier["name"]
    container = f"{name}-client"
    placed = ("create", "--name", container, "--network", f"{name}_database", "--user", "50000:0")
    secrets = (project.secrets / "mounted/airflow").iterdir()
    mounts = [f"--volume={file}:/run/secrets/{file.name}:ro" for file in secrets]
    try:
        made = docker(*placed, *mounts, "--entrypoint", "python", tier["airflow"], "-c", WHO_IS_THE_PRIMARY)
        assert made.status == 0, made.output
        assert docker("network", "connect", f"{name}_broker", container).status == 0
        primaries = docker("start", "--attach", container).output.split()[-2:]
    finally:
        docker("rm", "--force", "--volumes", container)
    assert primaries == [primary(name, POSTGRES_NODES), f"{primary(name, REDIS_NODES)}:6379"]


@pytest.mark.parametrize("target", ["postgres", "redis"])
def test_a_planned_switch_moves_the_primary_and_stays_in_sync(tier, target):
    nodes, switch = {
        "postgres": (POSTGRES_NODES, switch_postgres),
        "redis": (REDIS_NODES, switch_redis),
    }[target]
    seconds_until(lambda: all_in_sync(tier["name"]), 60)
    before = primary(tier["name"], nodes)
    switch(tier["name"], print)
    assert primary(tier["name"], nodes) not in (None, before)
    seconds_until(lambda: all_in_sync(tier["name"]), 30)


def test_a_killed_postgres_primary_is_replaced_within_20_s(tier):
    name = tier["name"]
    seconds_until(lambda: all_in_sync(name), 60)
    old = primary(name, POSTGRES_NODES)
    assert old
    sql(name, old, "CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
    (new,) = set(POSTGRES_NODES) - {old}
    kill(name, old)
    seconds_until(lambda: sql(name, new, "SELECT pg_is_in_recovery()") == "f", 20)
    assert sql(name, new, "SELECT count(*) FROM kept") == "1000"
    seconds_until(lambda: all_in_sync(name), 60)
    assert sql(name, old, "SELECT count(*), pg_is_in_recovery() FROM kept") == "1000|t"
    sql(name, new, "DROP TABLE kept")


def test_a_killed_replica_moves_no_primary(tier):
    name = tier["name"]
    seconds_until(lambda: all_in_sync(name), 60)
    before = primary(name, POSTGRES_NODES)
    (replica,) = set(POSTGRES_NODES) - {before}
    kill(name, replica)
    seconds_until(lambda: all_in_sync(name), 60)
    assert primary(name, POSTGRES_NODES) == before


def test_a_frozen_redis_primary_is_replaced_within_15_s(tier):
    name = tier["name"]
    seconds_until(lambda: all_in_sync(name), 60)
    old = primary(name, REDIS_NODES)
    assert old
    container = data_tier.running(name)[old]
    compose.pause([container])
    try:
        seconds_until(lambda: primary(name, REDIS_NODES) not in (None, old), 15)
    finally:
        docker("unpause", container)
    seconds_until(lambda: all_in_sync(name), 60)
    assert primary(name, REDIS_NODES) != old


def test_unchanged_cluster_settings_are_not_applied_again(tier):
    lines: list[str] = []
    data_tier.apply_cluster_settings(tier["project"], tier["name"], lines.append)
    assert lines == []
