"""Sides take turns, one is frozen while the other works, and everything is as it was afterwards."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from ops import waiting
from ops.bench import bench_runner, targets, telemetry_cost
from ops.bench.benches import BENCHES, Bench
from ops.bench.comparisons import COMPARISONS, Comparison
from ops.bench.targets import Side, fewer_workers, turns
from ops.compose import Instance
from ops.errors import StackError


class Docker:
    """Containers of two compose projects, one each, and what was done to them."""

    def __init__(self):
        self.states = {"x": "running", "x-stock": "running"}
        self.done: list[tuple[str, ...]] = []

    def instances(self, project):
        health = "healthy" if self.states[project] == "running" else "unhealthy"
        return {"worker": [Instance(id=project, state=self.states[project], health=health, created=0.0)]}

    def docker(self, verb, *containers):
        self.done.append((verb, *containers))
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
    monkeypatch.setattr(targets, "under_way", lambda api: 0)
    monkeypatch.setattr(targets, "run_to_end", lambda api, dag_id, conf, report: docker.done.append(("warm-up", api)))
    return docker


HERE, STOCK = (
    Side(name, project, {}, api, lambda slots: nullcontext())
    for name, project, api in (("here", "x", "a"), ("stock", "x-stock", "b"))
)


def test_one_side_is_frozen_while_the_other_works(machine):
    with turns([HERE, STOCK], print) as turn:
        turn(HERE)
        assert machine.states == {"x": "running", "x-stock": "paused"}
        turn(STOCK)
        assert machine.states == {"x": "paused", "x-stock": "running"}
    assert machine.states == {"x": "running", "x-stock": "running"}


def test_a_side_has_worked_before_it_is_measured_and_after_it_was_thawed(machine):
    machine.states["x"] = "paused"
    with turns([HERE], print) as turn:
        turn(HERE)
    assert machine.done == [("unpause", "x"), ("warm-up", "a")]


def test_a_side_with_a_run_under_way_is_not_frozen(machine, monkeypatch):
    monkeypatch.setattr(targets, "under_way", lambda api: 1)
    monkeypatch.setattr(targets, "QUIET_SECONDS", -1.0)
    with pytest.raises(StackError, match="stock: no run is under way"), turns([HERE, STOCK], print) as turn:
        turn(HERE)
    assert machine.states == {"x": "running", "x-stock": "running"}


def test_sides_begin_in_turn_and_every_sample_is_kept(machine):
    order: list[str] = []

    def measure(one, report):
        order.append(one.name)
        return {"n": float(len(order))}

    taken: dict = {}
    bench_runner.rounds_in_turn([Bench("b", "", measure)], [HERE, STOCK], 3, taken, print)
    assert order == ["here", "stock", "stock", "here", "here", "stock"]
    assert taken == {"b": {"here": [{"n": 1}, {"n": 4}, {"n": 5}], "stock": [{"n": 2}, {"n": 3}, {"n": 6}]}}


def test_what_was_measured_before_a_failure_is_kept_and_nobody_stays_frozen(machine):
    def measure(one, report):
        if one is STOCK:
            raise StackError("the run has failed")
        return {"n": 1.0}

    taken: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        bench_runner.rounds_in_turn([Bench("b", "", measure)], [HERE, STOCK], 5, taken, print)
    (result,) = bench_runner.results(taken)
    assert (result.samples, result.base) == ({"here": [{"n": 1.0}], "stock": []}, None)
    assert machine.states == {"x": "running", "x-stock": "running"}


MODEL = {"services": {"worker": {"environment": {targets.CONCURRENCY: "4"}}}}


@pytest.fixture
def workers(monkeypatch):
    done: list[tuple[str, ...]] = []
    three = [Instance(id=name, state="running", health="healthy", created=0.0) for name in "abc"]
    monkeypatch.setattr(targets.compose, "instances", lambda project: {"worker": three})
    monkeypatch.setattr(targets.compose, "docker", lambda *arguments: done.append(arguments))
    monkeypatch.setattr(targets, "all_ready", lambda model: True)
    return done


def test_so_many_slots_are_as_many_workers_as_have_them_for_a_while(workers):
    with pytest.raises(ZeroDivisionError), fewer_workers("x", MODEL, print, 8):  # noqa: PT012
        assert workers == [("stop", "c")]
        raise ZeroDivisionError
    assert workers == [("stop", "c"), ("start", "c")]


def test_all_slots_stop_nobody(workers):
    with fewer_workers("x", MODEL, print, 12):
        pass
    assert workers == []


@pytest.mark.parametrize("slots", [6, 16])
def test_slots_that_the_workers_do_not_come_to_are_refused(workers, slots):
    with pytest.raises(StackError, match=f"cannot be {slots} slots"), fewer_workers("x", MODEL, print, slots):
        pass
    assert workers == []


def test_nobody_is_told_while_the_benches_run_and_everybody_after(monkeypatch):
    made: list[dict] = []
    ended: list[str] = []

    class Alertmanager:
        def silence(self, matchers, start, end, by, why):
            made.append(matchers)
            return f"silence-{len(made)}"

        def end_silence(self, silence):
            ended.append(silence)

    monkeypatch.setattr(bench_runner.alertmanager, "both", lambda settings: [])
    monkeypatch.setattr(bench_runner.alertmanager, "any_that_answers", lambda candidates: Alertmanager())
    quiet = iter([False, True])
    monkeypatch.setattr(bench_runner, "is_settled", lambda settings: next(quiet) and not ended.append("quiet"))
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    settings = {"COMPOSE_PROFILES": "data,observability"}
    with pytest.raises(ZeroDivisionError), bench_runner.muted(settings, print):  # noqa: PT012
        assert made == [{"severity": "page"}, {"severity": "ticket"}]
        raise ZeroDivisionError
    assert ended == ["quiet", "silence-1", "silence-2"]


def test_an_alert_that_goes_on_to_fire_is_told_of_in_the_end(monkeypatch):
    ended: list[str] = []
    server = SimpleNamespace(silence=lambda *_: "an-id", end_silence=ended.append)
    monkeypatch.setattr(bench_runner.alertmanager, "both", lambda settings: [])
    monkeypatch.setattr(bench_runner.alertmanager, "any_that_answers", lambda candidates: server)
    monkeypatch.setattr(bench_runner, "is_settled", lambda settings: False)
    monkeypatch.setattr(bench_runner, "QUIET_SECONDS", -1.0)
    said: list[str] = []
    with bench_runner.muted({"COMPOSE_PROFILES": "observability"}, said.append):
        pass
    assert ended == ["an-id", "an-id"]
    assert "no alert fires any more" in said[-1]


def test_the_severities_that_are_muted_are_all_that_reach_people():
    import yaml

    from ops.project import ROOT

    rules = [
        rule
        for path in (ROOT / "alerting/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {rule["labels"]["severity"] for rule in rules} - {"none"} == set(bench_runner.SEVERITIES)


def test_without_observability_there_is_nobody_to_mute():
    with bench_runner.muted({"COMPOSE_PROFILES": "data"}, print):
        pass


def test_single_nodes_are_not_measured_against_replicas():
    bench_runner.check_alike({"COMPOSE_PROFILES": "data,flower,observability,slack-stub"})
    with pytest.raises(StackError, match="have replicas") as refused:
        bench_runner.check_alike({"COMPOSE_PROFILES": "data-ha,flower"})
    assert "--profile data " in refused.value.hint


def test_telemetrys_ways_take_turns_and_airflow_is_made_anew_once_a_round(monkeypatch):
    done: list[str] = []
    containers = {name: [Instance(id=name, state="running", health="healthy", created=0.0)] for name in "abc"}
    monkeypatch.setattr(telemetry_cost, "CONTAINERS", ("a", "b"))
    monkeypatch.setattr(telemetry_cost.compose, "instances", lambda project: containers)
    monkeypatch.setattr(telemetry_cost.compose, "docker", lambda *arguments: done.append(" ".join(arguments)))
    monkeypatch.setattr(telemetry_cost.compose, "pause", lambda victims: done.append(" ".join(["pause", *victims])))
    monkeypatch.setattr(telemetry_cost, "whole", lambda *_: None)
    monkeypatch.setattr(telemetry_cost, "measure", lambda *_: done.append("run") or {telemetry_cost.RATE: 1.0})

    @contextmanager
    def switched_off(project, report):
        done.append("off")
        yield
        done.append("on")

    monkeypatch.setattr(telemetry_cost, "switched_off", switched_off)
    taken: dict = {}
    telemetry_cost.compare(None, HERE, 3, taken, print)
    stopped, frozen = ["stop a b", "run", "start a b"], ["pause a b", "run", "unpause a b"]
    off = ["off", "run", "run", "run", "on"]
    assert done[: done.index("off")] == ["run", "run", *stopped, *frozen]
    # The first run after a change is not counted.
    assert done[done.index("off") :] == [
        *off,
        *["run", *frozen, *stopped, "run", "run", *stopped, *frozen],
        *["off", "run", "run", "on"],
    ]
    assert list(taken) == ["on", "stopped", "frozen", "off"]
    assert {len(of) for of in taken.values()} == {3}
    assert bench_runner.base("telemetry", taken) == "off"


def test_telemetry_that_is_not_there_is_not_compared(monkeypatch):
    monkeypatch.setattr(telemetry_cost.compose, "instances", lambda project: {"prometheus": []})
    with pytest.raises(StackError, match="without otel-collector, statsd-exporter"):
        telemetry_cost.compare(None, HERE, 1, {}, print)


@pytest.mark.parametrize(
    ("names", "every", "chosen"),
    [
        (["idle", "latency"], False, ["latency", "idle"]),
        (["telemetry", "idle", "workers"], False, ["idle", "workers", "telemetry"]),
        (
            [],
            True,
            [
                *(one.name for one in BENCHES),
                "schedulers",
                "workers",
                "dag-files",
                "memory-load",
                "commits",
                "patches",
                "patch-modes",
                "scheduler-rest",
                "telemetry",
            ],
        ),
    ],
)
def test_benches_are_held_in_their_order(names, every, chosen):
    benches, comparisons = bench_runner.choose(BENCHES, COMPARISONS, names, every=every)
    assert [one.name for one in benches] + [one.name for one in comparisons] == chosen


def test_a_bench_that_does_not_exist_is_named():
    with pytest.raises(StackError, match="no bench 'speed'") as refused:
        bench_runner.choose(BENCHES, COMPARISONS, ["speed"], every=False)
    assert "dag-files" in refused.value.hint


def test_sizes_are_compared_with_the_smallest():
    assert bench_runner.base("dag-files", {"10 files": [{}], "100 files": [{}]}) == "10 files"
    assert bench_runner.base("workers", {"1 worker": [], "2 workers": [{}]}) is None


def test_results_are_plain_json():
    from dataclasses import asdict

    (result,) = bench_runner.results({"b": {"here": [{"n": 1.0}], "stock": [{"n": 2.0}]}, "none": {"here": []}})
    assert json.loads(json.dumps(asdict(result)))["base"] == "stock"


def test_stock_is_there_for_its_benches_and_gone_before_the_stack_is_compared_with_itself(monkeypatch):
    log: list[str] = []

    @contextmanager
    def there(name, value):
        log.append(f"{name} up")
        yield value
        log.append(f"{name} gone")

    other = SimpleNamespace(project="its project", name="x-stock", api="b")
    monkeypatch.setattr(bench_runner, "ours", lambda *_: there("here", HERE))
    monkeypatch.setattr(bench_runner, "stock", lambda *_, **__: there("stock", other))
    monkeypatch.setattr(bench_runner.compose, "config", lambda project: {"of": project})
    monkeypatch.setattr(
        bench_runner, "rounds_in_turn", lambda benches, sides, *_: log.extend(one.name for one in sides)
    )
    alone = Comparison("sizes", "", "1", lambda project, side, rounds, taken, report: taken.update({"1": [{"n": 1.0}]}))
    taken: dict = {}
    settings = {"COMPOSE_PROFILES": "data"}
    bench_runner.conduct(BENCHES[:1], [alone], None, settings, taken, log.append, rounds=1, beside_stock=True)
    assert log == ["here up", "stock up", "here", "stock", "stock gone", "here gone"]
    assert taken == {"sizes": {"1": [{"n": 1.0}]}}
