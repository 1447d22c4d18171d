"""The replicated data tier: what its nodes say of themselves, and what a planned switch refuses."""

from __future__ import annotations

import json

import pytest

from ops import data_tier, settings_file
from ops.data_tier import is_healthy, is_in_sync
from ops.errors import StackError
from ops.failover import PAUSE_MILLISECONDS, switch_partners, switch_redis
from tests.unit.ops.test_commands import run
from tests.unit.ops.test_status import container

CLUSTER = {
    "members": [
        {"name": "patroni-1", "role": "sync_standby", "state": "streaming", "lag": 120},
        {"name": "patroni-2", "role": "leader", "state": "running"},
    ]
}
PRIMARY = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_repl_offset:1000\r\n"
REPLICA = "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nslave_repl_offset:990\r\nmaster_repl_offset:990\r\n"
ORPHAN = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nslave_repl_offset:700\r\n"
NODES = ("patroni-1", "patroni-2", "redis-1", "redis-2", "redis-3", "sentinel-1")


def member(service: str, role: data_tier.Role, state: str, lag: int | None = None) -> data_tier.Member:
    return data_tier.Member(service=service, role=role, state=state, lag_bytes=lag)


def test_postgres_nodes_have_the_role_and_the_lag_that_patroni_tells():
    assert data_tier.postgres_members(json.dumps(CLUSTER)) == [
        member("patroni-1", "sync replica", "streaming", 120),
        member("patroni-2", "primary", "running"),
    ]


def test_a_node_that_patroni_does_not_know_is_away():
    alone = {"members": [CLUSTER["members"][1]]}
    found = data_tier.postgres_members(json.dumps(alone))
    assert found[0] == member("patroni-1", "unknown", "away")
    assert not is_healthy(found[0])


WHOLE = [
    member("patroni-1", "sync replica", "streaming"),
    member("patroni-2", "primary", "running"),
    member("redis-1", "primary", "running"),
    member("redis-2", "replica", "streaming"),
    member("redis-3", "replica", "streaming"),
]


def test_the_tier_is_whole_when_each_has_one_primary_and_every_replica_keeps_up():
    assert is_in_sync(WHOLE)
    assert data_tier.primaries(WHOLE) == {"patroni-2", "redis-1"}


@pytest.mark.parametrize(
    "one",
    [
        member("patroni-1", "replica", "streaming"),
        member("patroni-1", "unknown", "away"),
        member("patroni-2", "replica", "running"),
        member("redis-2", "replica", "looks for its primary"),
        member("redis-3", "primary", "running"),
    ],
    ids=lambda one: f"{one['service']} is {one['role']}, {one['state']}",
)
def test_it_is_not_whole_while_one_of_them_is_not_what_it_should_be(one):
    assert not is_in_sync([one if found["service"] == one["service"] else found for found in WHOLE])


@pytest.mark.parametrize("answer", [None, "", "no JSON"])
def test_when_no_patroni_answers_every_node_is_away(answer):
    assert [found["state"] for found in data_tier.postgres_members(answer)] == ["away", "away"]


def test_a_lag_that_patroni_does_not_know_is_none():
    unknown = {"members": [{"name": "patroni-1", "role": "replica", "state": "starting", "lag": "unknown"}]}
    assert data_tier.postgres_members(json.dumps(unknown))[0] == member("patroni-1", "replica", "starting")


def test_a_redis_replica_is_as_far_behind_as_its_offset():
    found = data_tier.redis_members({"redis-1": REPLICA, "redis-2": PRIMARY, "redis-3": ORPHAN})
    assert found == [
        member("redis-1", "replica", "streaming", 10),
        member("redis-2", "primary", "running"),
        member("redis-3", "replica", "looks for its primary", 300),
    ]
    assert [is_healthy(one) for one in found] == [True, True, False]


def test_a_redis_that_does_not_answer_or_refuses_is_away():
    found = data_tier.redis_members({"redis-1": None, "redis-2": "NOAUTH Authentication required.", "redis-3": REPLICA})
    assert [one["state"] for one in found] == ["away", "away", "streaming"]
    assert found[2]["lag_bytes"] is None


def test_a_switch_needs_a_primary_and_a_replica_that_has_everything():
    primary, behind = member("patroni-1", "primary", "running"), member("patroni-2", "replica", "streaming", 9)
    with pytest.raises(StackError, match="no sync replica that could take over") as refused:
        switch_partners([primary, behind], ("patroni-1", "patroni-2"), wanted="sync replica")
    assert "patroni-2 is replica, streaming" in refused.value.where
    in_sync = member("patroni-2", "sync replica", "streaming", 0)
    partners = switch_partners([primary, in_sync], ("patroni-1", "patroni-2"), wanted="sync replica")
    assert partners == ("patroni-1", "patroni-2")
    with pytest.raises(StackError, match="there is no primary"):
        switch_partners([in_sync], ("patroni-1", "patroni-2"), wanted="sync replica")


@pytest.fixture
def tier(project, docker):
    """The data tier runs, and every node answers."""
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data-ha\n")
    containers = [container(node, 1, health="healthy") for node in NODES]
    docker.answer("ps --all", out="\n".join(one["Id"] for one in containers))
    docker.answer("inspect", out=json.dumps(containers))
    ids = {node: one["Id"][:12] for node, one in zip(NODES, containers, strict=True)}
    docker.answer(f"{ids['redis-1']} sh -c", out=PRIMARY)
    docker.answer(f"{ids['redis-2']} sh -c", out=REPLICA)
    docker.answer("/cluster", out=json.dumps(CLUSTER))
    return ids


def test_the_members_are_asked_inside_their_containers_and_no_password_is_on_a_command_line(tier, docker):
    found = {one["service"]: one for one in data_tier.members("airflow-ha")}
    assert found["patroni-2"]["role"] == found["redis-1"]["role"] == "primary"
    assert found["redis-2"]["lag_bytes"] == 10
    assert found["redis-3"]["state"] == "away"
    asked = [call for call in docker.calls() if call[0] == "exec"]
    assert all("REDISCLI_AUTH=$(cat /run/secrets/redis_password)" in " ".join(call) for call in asked if "sh" in call)


def test_a_node_that_hangs_is_away_and_does_not_hold_up_the_others(tier, docker, monkeypatch):
    monkeypatch.setattr(data_tier, "ANSWER_SECONDS", 0.3)
    docker.answer(f"{tier['redis-1']} sh -c", hangs=True)
    found = {one["service"]: one["state"] for one in data_tier.members("airflow-ha")}
    assert found["redis-1"] == "away"
    assert found["redis-2"] == "streaming"


@pytest.mark.parametrize("target", ["postgres", "redis"])
def test_failover_without_replicas_is_refused_with_the_profile(project, docker, target):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data,flower\n")
    result = run("failover", target)
    assert result.returncode == 2
    assert f"no replica of {target}" in result.stderr
    assert "--profile data-ha" in result.stderr


def test_failover_of_something_else_is_refused_with_what_there_is(project, docker):
    result = run("failover", "etcd")
    assert result.returncode == 2
    assert "postgres" in result.stderr
    assert "redis" in result.stderr


def test_failover_of_a_stack_that_does_not_run_is_refused(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data-ha\n")
    result = run("failover", "postgres")
    assert result.returncode == 2
    assert "the stack does not run" in result.stderr


@pytest.mark.usefixtures("tier")
def test_a_switch_that_patroni_refuses_is_an_error_with_what_it_said(docker):
    docker.answer("switchover airflow --leader patroni-2 --candidate patroni-1", out="Error: no\nnot now\n", code=1)
    result = run("failover", "postgres")
    assert result.returncode == 1
    assert "Patroni did not switch: not now" in result.stderr


def test_a_switch_that_the_sentinels_refuse_lets_the_primary_go_on(tier, docker, monkeypatch):
    order = f"{tier['sentinel-1']} sh -c"
    docker.answer(order, out="NOGOODSLAVE No suitable replica to promote")
    with pytest.raises(StackError, match="the Sentinels did not switch: NOGOODSLAVE"):
        switch_redis("airflow-ha", print)
    paused = [call[-3:] for call in docker.calls() if "pause" in call or "unpause" in call]
    assert paused == [["pause", str(PAUSE_MILLISECONDS), "write"], ["redis-cli", "client", "unpause"]]


@pytest.mark.usefixtures("tier")
def test_up_gives_patroni_the_settings_of_its_file(project, docker):
    docker.answer("edit-config", out="Configuration changed\n")
    said: list[str] = []
    data_tier.apply_cluster_settings(project, "airflow-ha", said.append)
    (call,) = [call for call in docker.calls() if "edit-config" in call]
    assert call[-4:] == ["--quiet", "--force", "--apply", "-"]
    assert said == ["Patroni has new settings from compose/patroni/patroni.yaml"]


@pytest.mark.parametrize(
    ("profile", "volumes", "told"),
    [
        ("data-ha", ["airflow-ha_postgres-data"], "airflow-ha_postgres-data"),
        ("data", ["airflow-ha_patroni-1-data", "airflow-ha_patroni-2-data"], "airflow-ha_patroni-1-data"),
        ("data-ha", ["airflow-ha_patroni-1-data", "airflow-ha_postgres-data"], None),
        ("data-ha", [], None),
    ],
)
def test_data_in_the_other_profiles_database_is_told_of_before_a_new_one_starts(profile, volumes, told):
    said = data_tier.left_behind(profile, "airflow-ha", volumes)
    assert (told in said) if told else said is None


def test_both_profiles_of_the_data_tier_at_once_are_refused(project):
    with pytest.raises(StackError, match="data and data-ha are one or the other"):
        settings_file.check_profiles(["data", "flower", "data-ha"], "--profile")
    result = run("up", "--profile", "data", "--profile", "data-ha")
    assert result.returncode == 2
    assert "one or the other" in result.stderr
