"""Each number of instances that fits is measured, and then the number is restored."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import benches, instance_scaling
from ops.bench.targets import Measurement, Target
from ops.errors import StackError

MODEL = {
    "name": "x",
    "services": {"worker": {"deploy": {"replicas": 3, "resources": {"limits": {"memory": str(1024**3)}}}}},
}


@pytest.fixture
def stack(monkeypatch):
    """Stack of three workers; the numbers it was scaled to, and the model of each activated target."""
    state = SimpleNamespace(workers=3, log=[])

    def scale(project, wanted, report):
        state.workers = wanted["worker"]
        state.log.append(state.workers)

    @contextmanager
    def taking_turns(targets, report):
        yield lambda target: state.log.append(f"turn of {target.model['workers']}")

    monkeypatch.setattr(instance_scaling.scaling, "scale", scale)
    monkeypatch.setattr(instance_scaling.compose, "config", lambda project: MODEL | {"workers": state.workers})
    monkeypatch.setattr(instance_scaling.settings_file, "read", lambda project: {"WORKER_REPLICAS": "3"})
    monkeypatch.setattr(instance_scaling.preflight, "check_memory", lambda needed: None)
    monkeypatch.setattr(instance_scaling, "taking_turns", taking_turns)
    monkeypatch.setattr(instance_scaling, "measure", lambda *_: {instance_scaling.RATE: float(state.workers)})
    return state


TARGET = Target("here", "x", MODEL, None, lambda slots: None)


def test_sizes_alternate_and_the_number_is_restored(stack):
    samples: dict = {}
    instance_scaling.compare("worker", (1, 2), Measurement(None, TARGET, 2, samples, print))
    assert stack.log == [1, "turn of 1", 2, "turn of 2", 2, "turn of 2", 1, "turn of 1", 3]
    assert samples == {"1 worker": [{"tasks/s": 1.0}] * 2, "2 workers": [{"tasks/s": 2.0}] * 2}


def test_failure_keeps_samples_and_restores_the_number(stack, monkeypatch):
    def measure(*_):
        if stack.workers == 2:
            raise StackError("the run has failed")
        return {instance_scaling.RATE: 1.0}

    monkeypatch.setattr(instance_scaling, "measure", measure)
    samples: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        instance_scaling.compare("worker", (1, 2, 4), Measurement(None, TARGET, 5, samples, print))
    assert list(samples) == ["1 worker"]
    assert stack.log[-1] == 3


def test_size_without_enough_memory_is_skipped_and_reported(monkeypatch):
    needed_gib: list[int] = []

    def check_memory(needed):
        needed_gib.append(needed // 1024**3)
        if needed > 2 * 1024**3:
            raise StackError("too little memory")

    monkeypatch.setattr(instance_scaling.preflight, "check_memory", check_memory)
    lines: list[str] = []
    assert instance_scaling.sizes_that_fit(MODEL, "worker", (1, 4, 8), lines.append) == [1, 4]
    assert needed_gib == [-2, 1, 5]
    assert [line.partition(":")[0] for line in lines] == ["8 workers"]


def test_figures_of_other_services_are_dropped():
    sample = {"MiB": 3.0, "MiB: worker": 1.0, "MiB: redis": 2.0, benches.LATENCY: 0.5}
    assert list(instance_scaling.relevant_figures(sample, "worker")) == ["MiB", "MiB: worker", benches.LATENCY]


def test_sample_has_rate_cost_latency_idle_cpu_and_memory(monkeypatch):
    monkeypatch.setattr(instance_scaling, "run_fan_out", lambda target, report, tasks: (30.0, {"worker": 60.0}))
    monkeypatch.setattr(instance_scaling, "measure_latency", lambda target, report: {benches.LATENCY: 0.5})
    monkeypatch.setattr(instance_scaling, "measure_idle", lambda target, report, seconds: {benches.CORES: seconds})
    monkeypatch.setattr(instance_scaling, "measure_memory", lambda target, report: {benches.MEMORY: 3.0})
    monkeypatch.setattr(instance_scaling.prometheus_figures, "query_figures", lambda settings: {"connections": 7.0})
    assert instance_scaling.measure(TARGET, {}, print) == {
        instance_scaling.RATE: 10.0,
        benches.COST: 0.2,
        f"{benches.COST}: worker": 0.2,
        benches.LATENCY: 0.5,
        benches.CORES: instance_scaling.IDLE_SECONDS,
        benches.MEMORY: 3.0,
        "connections": 7.0,
    }


def test_summary_names_all_sizes():
    assert "1, 2 and 4 workers" in instance_scaling.summary("worker", (1, 2, 4))
