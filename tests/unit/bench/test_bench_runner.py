"""Targets take turns, the inactive one is frozen, and everything is restored afterwards."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from ops.bench import bench_runner, targets, telemetry_cost
from ops.bench.benches import BENCHES, Bench
from ops.bench.comparisons import COMPARISONS, Comparison
from ops.bench.targets import Measurement, Target, fewer_workers, taking_turns
from ops.compose import Instance
from ops.errors import StackError


class Docker:
    """Docker with one container in each of two compose projects; keeps its commands."""

    def __init__(self):
        self.states = {"x": "running", "x-stock": "running"}
        self.commands: list[tuple[str, ...]] = []

    def instances(self, project):
        health = "healthy" if self.states[project] == "running" else "unhealthy"
        return {"worker": [Instance(id=project, state=self.states[project], health=health, created=0.0)]}

    def docker(self, verb, *containers):
        self.commands.append((verb, *containers))
        for container in containers:
            self.states[container] = {"pause": "paused", "unpause": "running"}[verb]
        return ""


@pytest.fixture
def machine(monkeypatch):
    docker = Docker()
    monkeypatch.setattr(targets.compose, "instances", docker.instances)
    monkeypatch.setattr(targets.compose, "docker", docker.docker)
    monkeypatch.setattr(targets.compose, "pause", lambda containers: docker.docker("pause", *containers))
    monkeypatch.setattr(targets, "all_ready", lambda model: True)
    monkeypatch.setattr(targets, "active_runs", lambda api: 0)
    monkeypatch.setattr(
        targets, "run_and_wait", lambda api, dag_id, conf, report: docker.commands.append(("warm-up", api))
    )
    return docker


HERE, STOCK = (
    Target(name, project, {}, api, lambda slots: nullcontext())
    for name, project, api in (("here", "x", "a"), ("stock", "x-stock", "b"))
)


def test_inactive_target_is_frozen(machine):
    with taking_turns([HERE, STOCK], print) as activate:
        activate(HERE)
        assert machine.states == {"x": "running", "x-stock": "paused"}
        activate(STOCK)
        assert machine.states == {"x": "paused", "x-stock": "running"}
    assert machine.states == {"x": "running", "x-stock": "running"}


def test_thawed_target_is_warmed_up(machine):
    machine.states["x"] = "paused"
    with taking_turns([HERE], print) as activate:
        activate(HERE)
    assert machine.commands == [("unpause", "x"), ("warm-up", "a")]


def test_target_with_an_active_run_is_not_frozen(machine, monkeypatch):
    monkeypatch.setattr(targets, "active_runs", lambda api: 1)
    monkeypatch.setattr(targets, "IDLE_SECONDS", -1.0)
    with pytest.raises(StackError, match="stock: no run"), taking_turns([HERE, STOCK], print) as activate:
        activate(HERE)
    assert machine.states == {"x": "running", "x-stock": "running"}


def test_targets_alternate_and_every_sample_is_kept(machine):
    order: list[str] = []

    def measure(target, report):
        order.append(target.name)
        return {"n": float(len(order))}

    samples: dict = {}
    bench_runner.measure_in_turns([Bench("b", "", measure)], [HERE, STOCK], 3, samples, print)
    assert order == ["here", "stock", "stock", "here", "here", "stock"]
    assert samples == {"b": {"here": [{"n": 1}, {"n": 4}, {"n": 5}], "stock": [{"n": 2}, {"n": 3}, {"n": 6}]}}


def test_failure_keeps_samples_and_thaws_all_targets(machine):
    def measure(target, report):
        if target is STOCK:
            raise StackError("the run has failed")
        return {"n": 1.0}

    samples: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        bench_runner.measure_in_turns([Bench("b", "", measure)], [HERE, STOCK], 5, samples, print)
    (result,) = bench_runner.to_results(samples)
    assert (result.samples, result.base) == ({"here": [{"n": 1.0}], "stock": []}, None)
    assert machine.states == {"x": "running", "x-stock": "running"}


MODEL = {"services": {"worker": {"environment": {targets.CONCURRENCY: "4"}}}}


@pytest.fixture
def workers(monkeypatch):
    commands: list[tuple[str, ...]] = []
    three = [Instance(id=name, state="running", health="healthy", created=0.0) for name in "abc"]
    monkeypatch.setattr(targets.compose, "instances", lambda project: {"worker": three})
    monkeypatch.setattr(targets.compose, "docker", lambda *arguments: commands.append(arguments))
    monkeypatch.setattr(targets, "all_ready", lambda model: True)
    return commands


def test_slot_limit_stops_workers_and_restarts_them(workers):
    with pytest.raises(ZeroDivisionError), fewer_workers("x", MODEL, print, 8):  # noqa: PT012
        assert workers == [("stop", "c")]
        raise ZeroDivisionError
    assert workers == [("stop", "c"), ("start", "c")]


def test_slot_limit_of_all_slots_stops_no_worker(workers):
    with fewer_workers("x", MODEL, print, 12):
        pass
    assert workers == []


@pytest.mark.parametrize("slots", [6, 16])
def test_slot_limit_without_matching_workers_is_refused(workers, slots):
    with pytest.raises(StackError, match=f"{slots} slots"), fewer_workers("x", MODEL, print, slots):
        pass
    assert workers == []


def test_replicated_data_tier_is_not_comparable_with_stock():
    bench_runner.check_comparable({"COMPOSE_PROFILES": "data,flower,observability,slack-stub"})
    with pytest.raises(StackError, match="have replicas") as refused:
        bench_runner.check_comparable({"COMPOSE_PROFILES": "data-ha,flower"})
    assert "--profile data " in refused.value.hint


def test_telemetry_variants_recreate_airflow_once_a_round(monkeypatch):
    commands: list[str] = []
    containers = {name: [Instance(id=name, state="running", health="healthy", created=0.0)] for name in "abc"}
    monkeypatch.setattr(telemetry_cost, "CONTAINERS", ("a", "b"))
    monkeypatch.setattr(telemetry_cost.compose, "instances", lambda project: containers)
    monkeypatch.setattr(telemetry_cost.compose, "docker", lambda *arguments: commands.append(" ".join(arguments)))
    monkeypatch.setattr(telemetry_cost.compose, "pause", lambda ids: commands.append(" ".join(["pause", *ids])))
    monkeypatch.setattr(telemetry_cost, "wait_until_ready", lambda *_: None)
    monkeypatch.setattr(telemetry_cost, "measure", lambda *_: commands.append("run") or {telemetry_cost.RATE: 1.0})

    @contextmanager
    def switched_off(project, report):
        commands.append("off")
        yield
        commands.append("on")

    monkeypatch.setattr(telemetry_cost, "switched_off", switched_off)
    samples: dict = {}
    telemetry_cost.compare(Measurement(None, HERE, 3, samples, print))
    stopped, frozen = ["stop a b", "run", "start a b"], ["pause a b", "run", "unpause a b"]
    off = ["off", "run", "run", "run", "on"]
    assert commands[: commands.index("off")] == ["run", "run", *stopped, *frozen]
    # The first run after a change is not counted.
    assert commands[commands.index("off") :] == [
        *off,
        *["run", *frozen, *stopped, "run", "run", *stopped, *frozen],
        *["off", "run", "run", "on"],
    ]
    assert list(samples) == ["on", "stopped", "frozen", "off"]
    assert {len(taken) for taken in samples.values()} == {3}
    assert bench_runner.base_variant("telemetry", samples) == "off"


def test_missing_telemetry_is_refused(monkeypatch):
    monkeypatch.setattr(telemetry_cost.compose, "instances", lambda project: {"prometheus": []})
    with pytest.raises(StackError, match="without otel-collector, statsd-exporter"):
        telemetry_cost.compare(Measurement(None, HERE, 1, {}, print))


@pytest.mark.parametrize(
    ("names", "every", "selected"),
    [
        (["idle", "latency"], False, ["latency", "idle"]),
        (["telemetry", "idle", "workers"], False, ["idle", "workers", "telemetry"]),
        (
            [],
            True,
            [
                *(bench.name for bench in BENCHES),
                "schedulers",
                "workers",
                "dag-files",
                "memory-load",
                "commits",
                "patches",
                "patch-modes",
                "scheduler-rest",
                "maintenance",
                "telemetry",
                "backup",
            ],
        ),
    ],
)
def test_selected_benches_keep_their_order(names, every, selected):
    benches, comparisons = bench_runner.select(BENCHES, COMPARISONS, names, every=every)
    assert [bench.name for bench in (*benches, *comparisons)] == selected


def test_unknown_bench_is_named_with_the_known_ones():
    with pytest.raises(StackError, match="'speed'") as refused:
        bench_runner.select(BENCHES, COMPARISONS, ["speed"], every=False)
    assert "dag-files" in refused.value.hint


def test_base_is_the_smallest_size_if_measured():
    assert bench_runner.base_variant("dag-files", {"10 files": [{}], "100 files": [{}]}) == "10 files"
    assert bench_runner.base_variant("workers", {"1 worker": [], "2 workers": [{}]}) is None


def test_results_serialize_to_json():
    from dataclasses import asdict

    (result,) = bench_runner.to_results({"b": {"here": [{"n": 1.0}], "stock": [{"n": 2.0}]}, "none": {"here": []}})
    assert json.loads(json.dumps(asdict(result)))["base"] == "stock"


def test_stock_airflow_is_removed_before_comparisons(monkeypatch):
    log: list[str] = []

    @contextmanager
    def running(name, value):
        log.append(f"{name} up")
        yield value
        log.append(f"{name} removed")

    other = SimpleNamespace(project="its project", name="x-stock", api="b")
    monkeypatch.setattr(bench_runner, "stack_target", lambda *_: running("here", HERE))
    monkeypatch.setattr(bench_runner, "stock", lambda *_, **__: running("stock", other))
    monkeypatch.setattr(bench_runner.compose, "config", lambda project: {"of": project})
    monkeypatch.setattr(
        bench_runner, "measure_in_turns", lambda benches, targets, *_: log.extend(target.name for target in targets)
    )
    alone = Comparison("sizes", "", "1", lambda measurement: measurement.samples.update({"1": [{"n": 1.0}]}))
    samples: dict = {}
    settings = {"COMPOSE_PROFILES": "data"}
    plan = bench_runner.Plan(BENCHES[:1], [alone], 1, with_stock=True)
    bench_runner.run_plan(plan, None, settings, samples, log.append)
    assert log == ["here up", "stock up", "here", "stock", "stock removed", "here removed"]
    assert samples == {"sizes": {"1": [{"n": 1.0}]}}
