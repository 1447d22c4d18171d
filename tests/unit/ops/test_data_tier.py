"""The replicated data tier: the status of its nodes, and a planned failover."""

from __future__ import annotations

import json

import pytest

from ops import data_tier, settings_file
from ops.data_tier import is_healthy, is_in_sync
from ops.errors import StackError
from ops.failover import PAUSE_MILLISECONDS, switch_partners, switch_redis
from tests.unit.stack_fakes import container, run

CLUSTER = {
    "members": [
        {"name": "patroni-1", "role": "sync_standby", "state": "streaming", "lag": 120},
        {"name": "patroni-2", "role": "leader", "state": "running"},
    ]
}
PRIMARY = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_repl_offset:1000\r\n"
REPLICA = "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nslave_repl_offset:990\r\nmaster_repl_offset:990\r\n"
DISCONNECTED = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nslave_repl_offset:700\r\n"
NODES = ("patroni-1", "patroni-2", "redis-1", "redis-2", "redis-3", "sentinel-1")


def member(service: str, role: data_tier.Role, state: str, lag: int | None = None) -> data_tier.Member:
    return data_tier.Member(service=service, role=role, state=state, lag_bytes=lag)


def test_postgres_role_and_lag_come_from_patroni():
    assert data_tier.postgres_members(json.dumps(CLUSTER)) == [
        member("patroni-1", "sync replica", "streaming", 120),
        member("patroni-2", "primary", "running"),
    ]


def test_node_unknown_to_patroni_is_unreachable():
    alone = {"members": [CLUSTER["members"][1]]}
    unknown, _ = data_tier.postgres_members(json.dumps(alone))
    assert unknown == member("patroni-1", "unknown", "unreachable")
    assert not is_healthy(unknown)


IN_SYNC = [
    member("patroni-1", "sync replica", "streaming"),
    member("patroni-2", "primary", "running"),
    member("redis-1", "primary", "running"),
    member("redis-2", "replica", "streaming"),
    member("redis-3", "replica", "streaming"),
]


def test_tier_with_one_primary_each_and_replicas_is_in_sync():
    assert is_in_sync(IN_SYNC)
    assert data_tier.primaries(IN_SYNC) == {"patroni-2", "redis-1"}


@pytest.mark.parametrize(
    "changed",
    [
        member("patroni-1", "replica", "streaming"),
        member("patroni-1", "unknown", "unreachable"),
        member("patroni-2", "replica", "running"),
        member("redis-2", "replica", "disconnected"),
        member("redis-3", "primary", "running"),
    ],
    ids=lambda changed: f"{changed['service']} is {changed['role']}, {changed['state']}",
)
def test_tier_with_one_faulty_node_is_not_in_sync(changed):
    assert not is_in_sync([changed if node["service"] == changed["service"] else node for node in IN_SYNC])


@pytest.mark.parametrize("answer", [None, "", "no JSON"])
def test_every_node_is_unreachable_without_patronis_answer(answer):
    assert [node["state"] for node in data_tier.postgres_members(answer)] == ["unreachable", "unreachable"]


def test_lag_unknown_to_patroni_is_none():
    unknown = {"members": [{"name": "patroni-1", "role": "replica", "state": "starting", "lag": "unknown"}]}
    assert data_tier.postgres_members(json.dumps(unknown))[0] == member("patroni-1", "replica", "starting")


def test_lag_of_a_redis_replica_is_its_offset_difference():
    nodes = data_tier.redis_members({"redis-1": REPLICA, "redis-2": PRIMARY, "redis-3": DISCONNECTED})
    assert nodes == [
        member("redis-1", "replica", "streaming", 10),
        member("redis-2", "primary", "running"),
        member("redis-3", "replica", "disconnected", 300),
    ]
    assert [is_healthy(node) for node in nodes] == [True, True, False]


def test_redis_without_a_valid_answer_is_unreachable():
    nodes = data_tier.redis_members({"redis-1": None, "redis-2": "NOAUTH Authentication required.", "redis-3": REPLICA})
    assert [node["state"] for node in nodes] == ["unreachable", "unreachable", "streaming"]
    assert nodes[2]["lag_bytes"] is None


def test_failover_requires_a_primary_and_a_replica_in_sync():
    primary, behind = member("patroni-1", "primary", "running"), member("patroni-2", "replica", "streaming", 9)
    with pytest.raises(StackError, match="sync replica") as refused:
        switch_partners([primary, behind], ("patroni-1", "patroni-2"), replica_role="sync replica")
    assert "patroni-2 is replica, streaming" in refused.value.where
    in_sync = member("patroni-2", "sync replica", "streaming", 0)
    partners = switch_partners([primary, in_sync], ("patroni-1", "patroni-2"), replica_role="sync replica")
    assert partners == ("patroni-1", "patroni-2")
    with pytest.raises(StackError, match="primary"):
        switch_partners([in_sync], ("patroni-1", "patroni-2"), replica_role="sync replica")


@pytest.fixture
def tier(project, docker):
    """A running data tier in which every node answers; returns the container ids by service."""
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data-ha\n")
    containers = [container(node, 1, health="healthy") for node in NODES]
    docker.answer_containers(*containers)
    ids = {node: details["Id"][:12] for node, details in zip(NODES, containers, strict=True)}
    docker.answer(f"{ids['redis-1']} sh -c", out=PRIMARY)
    docker.answer(f"{ids['redis-2']} sh -c", out=REPLICA)
    docker.answer("/cluster", out=json.dumps(CLUSTER))
    return ids


def test_no_password_is_on_a_command_line(tier, docker):
    nodes = {node["service"]: node for node in data_tier.members("airflow-ha")}
    assert nodes["patroni-2"]["role"] == nodes["redis-1"]["role"] == "primary"
    assert nodes["redis-2"]["lag_bytes"] == 10
    assert nodes["redis-3"]["state"] == "unreachable"
    executed = [call for call in docker.calls() if call[0] == "exec"]
    assert all(
        "REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password)" in " ".join(call)
        for call in executed
        if "sh" in call
    )


def test_hung_node_is_unreachable_and_does_not_delay_others(tier, docker, monkeypatch):
    monkeypatch.setattr(data_tier, "ANSWER_SECONDS", 2.0)
    docker.answer(f"{tier['redis-1']} sh -c", hangs=True)
    states = {node["service"]: node["state"] for node in data_tier.members("airflow-ha")}
    assert states["redis-1"] == "unreachable"
    assert states["redis-2"] == "streaming"


@pytest.mark.parametrize("target", ["postgres", "redis"])
def test_failover_without_replicas_is_refused_with_the_profile(project, docker, target):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data,flower\n")
    result = run("failover", target)
    assert result.returncode == 2
    assert target in result.stderr
    assert "--profile data-ha" in result.stderr


def test_failover_of_unknown_target_is_refused_with_the_targets(project, docker):
    result = run("failover", "etcd")
    assert result.returncode == 2
    assert "postgres" in result.stderr
    assert "redis" in result.stderr


def test_failover_of_a_stopped_stack_is_refused(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data-ha\n")
    result = run("failover", "postgres")
    assert result.returncode == 2
    assert "./ops/stack up" in result.stderr


@pytest.mark.usefixtures("tier")
def test_failover_refused_by_patroni_is_an_error_with_its_output(docker):
    docker.answer("switchover airflow --leader patroni-2 --candidate patroni-1", out="Error: no\nnot now\n", code=1)
    result = run("failover", "postgres")
    assert result.returncode == 1
    assert "not now" in result.stderr


def test_failover_refused_by_sentinels_unpauses_the_primary(tier, docker, monkeypatch):
    docker.answer(f"{tier['sentinel-1']} sh -c", out="NOGOODSLAVE No suitable replica to promote")
    with pytest.raises(StackError, match="NOGOODSLAVE"):
        switch_redis("airflow-ha", print)
    paused = [call[-3:] for call in docker.calls() if "pause" in call or "unpause" in call]
    assert paused == [["pause", str(PAUSE_MILLISECONDS), "write"], ["redis-cli", "client", "unpause"]]


@pytest.mark.usefixtures("tier")
def test_up_applies_the_settings_file_of_patroni(project, docker):
    docker.answer("edit-config", out="Configuration changed\n")
    reported: list[str] = []
    data_tier.apply_cluster_settings(project, "airflow-ha", reported.append)
    (call,) = [call for call in docker.calls() if "edit-config" in call]
    assert call[-4:] == ["--quiet", "--force", "--apply", "-"]
    assert len(reported) == 1


@pytest.mark.parametrize(
    ("profile", "volumes", "old_volume"),
    [
        ("data-ha", ["airflow-ha_postgres-data"], "airflow-ha_postgres-data"),
        ("data", ["airflow-ha_patroni-1-data", "airflow-ha_patroni-2-data"], "airflow-ha_patroni-1-data"),
        ("data-ha", ["airflow-ha_patroni-1-data", "airflow-ha_postgres-data"], None),
        ("data-ha", [], None),
    ],
)
def test_up_warns_of_data_in_the_other_profiles_database(profile, volumes, old_volume):
    warning = data_tier.left_behind(profile, "airflow-ha", volumes)
    assert (old_volume in warning) if old_volume else warning is None


def test_both_data_profiles_at_once_are_refused(project):
    with pytest.raises(StackError, match="data and data-ha"):
        settings_file.check_profiles(["data", "flower", "data-ha"], "--profile")
    result = run("up", "--profile", "data", "--profile", "data-ha")
    assert result.returncode == 2
    assert "data and data-ha" in result.stderr
