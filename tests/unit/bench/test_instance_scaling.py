"""Each number of instances takes its turn, one that does not fit is told of, and then there are as many as before."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import benches, instance_scaling
from ops.bench.targets import Side
from ops.errors import StackError

MODEL = {
    "name": "x",
    "services": {"worker": {"deploy": {"replicas": 3, "resources": {"limits": {"memory": str(1024**3)}}}}},
}


@pytest.fixture
def stack(monkeypatch):
    """Three workers; what was scaled to, and the model with which a side had its turn."""
    seen = SimpleNamespace(workers=3, log=[])

    def scale(project, wanted, report):
        seen.workers = wanted["worker"]
        seen.log.append(seen.workers)

    @contextmanager
    def turns(sides, report):
        yield lambda side: seen.log.append(f"turn of {side.model['workers']}")

    monkeypatch.setattr(instance_scaling.scaling, "scale", scale)
    monkeypatch.setattr(instance_scaling.compose, "config", lambda project: MODEL | {"workers": seen.workers})
    monkeypatch.setattr(instance_scaling.settings_file, "read", lambda project: {"WORKER_REPLICAS": "3"})
    monkeypatch.setattr(instance_scaling.preflight, "check_memory", lambda needed: None)
    monkeypatch.setattr(instance_scaling, "turns", turns)
    monkeypatch.setattr(instance_scaling, "measure", lambda *_: {instance_scaling.RATE: float(seen.workers)})
    return seen


SIDE = Side("here", "x", MODEL, None, lambda slots: None)


def test_numbers_go_up_and_down_again_and_end_where_they_were(stack):
    taken: dict = {}
    instance_scaling.compare("worker", (1, 2), None, SIDE, 2, taken, print)
    assert stack.log == [1, "turn of 1", 2, "turn of 2", 2, "turn of 2", 1, "turn of 1", 3]
    assert taken == {"1 worker": [{"tasks/s": 1.0}] * 2, "2 workers": [{"tasks/s": 2.0}] * 2}


def test_a_failure_keeps_what_was_measured_and_the_number_that_was(stack, monkeypatch):
    def measure(*_):
        if stack.workers == 2:
            raise StackError("the run has failed")
        return {instance_scaling.RATE: 1.0}

    monkeypatch.setattr(instance_scaling, "measure", measure)
    taken: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        instance_scaling.compare("worker", (1, 2, 4), None, SIDE, 5, taken, print)
    assert list(taken) == ["1 worker"]
    assert stack.log[-1] == 3


def test_a_number_that_the_machine_has_no_memory_for_is_left_out_and_told_of(monkeypatch):
    asked: list[int] = []

    def check_memory(needed):
        asked.append(needed // 1024**3)
        if needed > 2 * 1024**3:
            raise StackError("too little memory")

    monkeypatch.setattr(instance_scaling.preflight, "check_memory", check_memory)
    said: list[str] = []
    assert instance_scaling.that_fit(MODEL, "worker", (1, 4, 8), said.append) == [1, 4]
    assert asked == [-2, 1, 5]
    assert said == ["8 workers: left out; too little memory"]


def test_other_services_are_left_out_of_the_figures():
    sample = {"MiB": 3.0, "MiB: worker": 1.0, "MiB: redis": 2.0, benches.LATENCY: 0.5}
    assert list(instance_scaling.of_interest(sample, "worker")) == ["MiB", "MiB: worker", benches.LATENCY]


def test_a_measurement_has_speed_cost_latency_rest_and_memory(monkeypatch):
    monkeypatch.setattr(instance_scaling, "counted", lambda side, report, tasks: (30.0, {"worker": 60.0}))
    monkeypatch.setattr(instance_scaling, "latency", lambda side, report: {benches.LATENCY: 0.5})
    monkeypatch.setattr(instance_scaling, "idle", lambda side, report, seconds: {benches.CORES: seconds})
    monkeypatch.setattr(instance_scaling, "memory", lambda side, report: {benches.MEMORY: 3.0})
    monkeypatch.setattr(instance_scaling.prometheus_figures, "asked", lambda settings: {"connections": 7.0})
    assert instance_scaling.measure(SIDE, {}, print) == {
        instance_scaling.RATE: 10.0,
        benches.COST: 0.2,
        f"{benches.COST}: worker": 0.2,
        benches.LATENCY: 0.5,
        benches.CORES: instance_scaling.IDLE_SECONDS,
        benches.MEMORY: 3.0,
        "connections": 7.0,
    }


def test_the_numbers_are_told_before_they_are_measured():
    assert instance_scaling.sentence("worker", (1, 2, 4)).startswith("With 1, 2 and 4 workers: a fan-out of 300 no-ops")
