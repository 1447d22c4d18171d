"""Each number of instances takes its turn, one that does not fit is told of, and then there are as many as before."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import catalogue, instances
from ops.bench.side import Side
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

    monkeypatch.setattr(instances.scaling, "scale", scale)
    monkeypatch.setattr(instances.compose, "config", lambda project: MODEL | {"workers": seen.workers})
    monkeypatch.setattr(instances.environment_file, "read", lambda project: {"WORKER_REPLICAS": "3"})
    monkeypatch.setattr(instances.preflight, "check_memory", lambda needed: None)
    monkeypatch.setattr(instances, "turns", turns)
    monkeypatch.setattr(instances, "measure", lambda *_: {instances.RATE: float(seen.workers)})
    return seen


SIDE = Side("here", "x", MODEL, None, lambda slots: None)


def test_numbers_go_up_and_down_again_and_end_where_they_were(stack):
    taken: dict = {}
    instances.compare("worker", (1, 2), None, SIDE, 2, taken, print)
    assert stack.log == [1, "turn of 1", 2, "turn of 2", 2, "turn of 2", 1, "turn of 1", 3]
    assert taken == {"1 worker": [{"tasks/s": 1.0}] * 2, "2 workers": [{"tasks/s": 2.0}] * 2}


def test_a_failure_keeps_what_was_measured_and_the_number_that_was(stack, monkeypatch):
    def measure(*_):
        if stack.workers == 2:
            raise StackError("the run has failed")
        return {instances.RATE: 1.0}

    monkeypatch.setattr(instances, "measure", measure)
    taken: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        instances.compare("worker", (1, 2, 4), None, SIDE, 5, taken, print)
    assert list(taken) == ["1 worker"]
    assert stack.log[-1] == 3


def test_a_number_that_the_machine_has_no_memory_for_is_left_out_and_told_of(monkeypatch):
    asked: list[int] = []

    def check_memory(needed):
        asked.append(needed // 1024**3)
        if needed > 2 * 1024**3:
            raise StackError("too little memory")

    monkeypatch.setattr(instances.preflight, "check_memory", check_memory)
    said: list[str] = []
    assert instances.that_fit(MODEL, "worker", (1, 4, 8), said.append) == [1, 4]
    assert asked == [-2, 1, 5]
    assert said == ["8 workers: left out; too little memory"]


def test_other_services_are_left_out_of_the_figures():
    sample = {"MiB": 3.0, "MiB: worker": 1.0, "MiB: redis": 2.0, catalogue.LATENCY: 0.5}
    assert list(instances.of_interest(sample, "worker")) == ["MiB", "MiB: worker", catalogue.LATENCY]


def test_a_measurement_has_speed_cost_latency_rest_and_memory(monkeypatch):
    monkeypatch.setattr(instances, "counted", lambda side, report, tasks: (30.0, {"worker": 60.0}))
    monkeypatch.setattr(instances, "latency", lambda side, report: {catalogue.LATENCY: 0.5})
    monkeypatch.setattr(instances, "idle", lambda side, report, seconds: {catalogue.CORES: seconds})
    monkeypatch.setattr(instances, "memory", lambda side, report: {catalogue.MEMORY: 3.0})
    monkeypatch.setattr(instances.prometheus_figures, "asked", lambda settings: {"connections": 7.0})
    assert instances.measure(SIDE, {}, print) == {
        instances.RATE: 10.0,
        catalogue.COST: 0.2,
        f"{catalogue.COST}: worker": 0.2,
        catalogue.LATENCY: 0.5,
        catalogue.CORES: instances.IDLE_SECONDS,
        catalogue.MEMORY: 3.0,
        "connections": 7.0,
    }


def test_the_numbers_are_told_before_they_are_measured():
    assert instances.sentence("worker", (1, 2, 4)).startswith("With 1, 2 and 4 workers: a fan-out of 300 no-ops")
