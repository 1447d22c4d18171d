"""The selection of drills: those that exist, and that this stack and this machine support."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ops.commands.drill import choose
from ops.drills import faults, runner
from ops.drills.catalogue import Drill, all_nodes, one_instance, primary, replica
from ops.errors import StackError

CATALOGUE = {
    "crash": Drill("crash", one_instance("scheduler"), "crash"),
    "slow": Drill("slow", one_instance("worker"), "slow", 30),
    "etcd": Drill("etcd", one_instance("etcd-1"), "kill", 30),
}
SERVICES = {"scheduler", "worker"}


@pytest.fixture
def root_without_netem(monkeypatch):
    monkeypatch.setattr(faults.sys, "platform", "linux")
    monkeypatch.setattr(faults.os, "geteuid", lambda: 0)
    monkeypatch.setattr(faults, "netem_error", lambda: "Specified qdisc kind is unknown.")


def test_all_skips_and_reports_what_is_not_supported(root_without_netem, capsys):
    assert [drill.name for drill in choose(CATALOGUE, [], every=True, services=SERVICES)] == ["crash"]
    assert "slow" in capsys.readouterr().out


def test_named_drill_without_kernel_support_gives_the_reason(root_without_netem):
    with pytest.raises(StackError, match="Specified qdisc"):
        choose(CATALOGUE, ["slow"], every=False, services=SERVICES)


def test_crash_without_root_is_refused(monkeypatch):
    monkeypatch.setattr(faults.os, "geteuid", lambda: 1000)
    with pytest.raises(StackError, match="root"):
        choose(CATALOGUE, ["crash"], every=False, services=SERVICES)


@pytest.mark.parametrize(("name", "named"), [("nope", "nope"), ("etcd", "etcd-1")])
def test_drill_without_entry_or_target_is_refused(name, named):
    with pytest.raises(StackError, match=named):
        choose(CATALOGUE, [name], every=False, services=SERVICES)


def test_role_selects_the_containers_that_have_it_now(monkeypatch):
    member = {"state": "running", "lag_bytes": None}
    roles = [
        {"service": "patroni-1", "role": "sync replica", **member},
        {"service": "patroni-2", "role": "primary", **member},
        {"service": "redis-1", "role": "primary", **member},
    ]
    instances = {name: [SimpleNamespace(id=f"{name}-id")] for name in ("patroni-1", "patroni-2", "redis-1")}
    monkeypatch.setattr(runner.data_tier, "members", lambda name: roles)
    monkeypatch.setattr(runner.compose, "instances", lambda name: instances)
    assert runner.target_containers("x", [*primary("patroni"), *primary("redis")]) == ["patroni-2-id", "redis-1-id"]
    assert runner.target_containers("x", replica("patroni")) == ["patroni-1-id"]
    assert runner.target_containers("x", all_nodes("patroni")) == ["patroni-1-id", "patroni-2-id"]
