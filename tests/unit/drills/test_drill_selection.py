"""Which drills are held: those that exist, and that this stack and this machine allow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ops.commands.drill import choose
from ops.drills import faults, runner
from ops.drills.catalogue import Drill, nodes, one, primary, replica
from ops.errors import StackError

CATALOGUE = {
    "crash": Drill("crash", one("scheduler"), "crash", 0, "interruption", 5),
    "slow": Drill("slow", one("worker"), "slow", 30, "interruption", 5),
    "etcd": Drill("etcd", one("etcd-1"), "kill", 30, "interruption", 5),
}
SERVICES = {"scheduler", "worker"}


@pytest.fixture
def root_without_netem(monkeypatch):
    monkeypatch.setattr(faults.sys, "platform", "linux")
    monkeypatch.setattr(faults.os, "geteuid", lambda: 0)
    monkeypatch.setattr(faults, "why_not_slow", lambda: "Specified qdisc kind is unknown.")


def test_all_are_those_that_can_be_held_here_and_the_others_are_named(root_without_netem, capsys):
    assert [one.name for one in choose(CATALOGUE, [], every=True, services=SERVICES)] == ["crash"]
    assert "slow left out: the network cannot be made slow here" in capsys.readouterr().out


def test_one_that_was_asked_for_and_cannot_be_held_is_refused_with_the_reason(root_without_netem):
    with pytest.raises(StackError, match="Specified qdisc"):
        choose(CATALOGUE, ["slow"], every=False, services=SERVICES)


def test_who_is_not_root_is_told_before_anything_is_struck(monkeypatch):
    monkeypatch.setattr(faults.os, "geteuid", lambda: 1000)
    with pytest.raises(StackError, match="reaches into the containers"):
        choose(CATALOGUE, ["crash"], every=False, services=SERVICES)


@pytest.mark.parametrize(("name", "said"), [("nope", "there is no drill 'nope'"), ("etcd", "does not have")])
def test_a_drill_that_does_not_exist_or_has_no_victim_here_is_refused(name, said):
    with pytest.raises(StackError, match=said):
        choose(CATALOGUE, [name], every=False, services=SERVICES)


def test_a_role_is_looked_up_when_the_fault_strikes_and_a_synchronous_replica_is_one(monkeypatch):
    member = {"state": "running", "lag_bytes": None}
    roles = [
        {"service": "patroni-1", "role": "sync replica", **member},
        {"service": "patroni-2", "role": "primary", **member},
        {"service": "redis-1", "role": "primary", **member},
    ]
    instances = {name: [SimpleNamespace(id=f"{name}-id")] for name in ("patroni-1", "patroni-2", "redis-1")}
    monkeypatch.setattr(runner.data_tier, "members", lambda name: roles)
    monkeypatch.setattr(runner.compose, "instances", lambda name: instances)
    assert runner.containers("x", [*primary("patroni"), *primary("redis")]) == ["patroni-2-id", "redis-1-id"]
    assert runner.containers("x", replica("patroni")) == ["patroni-1-id"]
    assert runner.containers("x", nodes("patroni")) == ["patroni-1-id", "patroni-2-id"]
