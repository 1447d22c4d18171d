"""The load of each bench on a target, and the figures that it returns."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import benches
from ops.bench.targets import Target
from ops.bench.ui_load import Responses
from ops.bench.workloads import FinishedRun


@pytest.fixture
def target(monkeypatch):
    """Target whose runs take 1 s for each ten tasks and use 0.1 CPU-seconds a task; and the state behind it."""
    state = SimpleNamespace(cpu=0.0, runs=[], slots=[])

    def run_and_wait(api, dag_id, conf, report, *, may_fail=False):
        tasks = conf.get("tasks", 2)
        state.cpu += tasks / 10
        state.runs.append((dag_id, conf))
        return FinishedRun(SimpleNamespace(run_id=str(len(state.runs))), "success", tasks / 10)

    @contextmanager
    def limit_slots(number):
        state.slots.append(number)
        yield
        state.slots.append(None)

    cgroup_usage = benches.cgroup_usage
    monkeypatch.setattr(cgroup_usage, "running_containers", lambda project: {"c": ("worker", 1)})
    monkeypatch.setattr(
        cgroup_usage, "read_usage", lambda containers: {"c": cgroup_usage.Usage("worker", state.cpu, 3 * 1024**2)}
    )
    monkeypatch.setattr(benches, "run_and_wait", run_and_wait)
    api = SimpleNamespace(url="http://a", authorization=dict)
    return Target("here", "x", {}, api, limit_slots), state


def test_latency_is_the_median_of_its_runs(target):
    assert benches.measure_latency(target[0], print) == {benches.LATENCY: 0.2}
    assert len(target[1].runs) == benches.PAIRS


def test_fan_outs_give_rate_and_cpu_for_each_size(target):
    sample = benches.measure_fan_outs(target[0], print)
    assert {name: pytest.approx(value) for name, value in sample.items()} == {
        "100 tasks: tasks/s": 10,
        "100 tasks: CPU-seconds a task": 0.1,
        "1,000 tasks: tasks/s": 10,
        "1,000 tasks: CPU-seconds a task": 0.1,
    }


def test_slots_bench_limits_slots_only_while_measuring(target):
    measured, state = target
    assert benches.measure_slots(measured, print) == {benches.SLOT_TIME: 30.0}
    assert state.slots == [8, None]
    assert state.runs[-1] == ("bench_fanout", {"tasks": 300, "seconds": 0.5})


def test_cost_and_memory_are_by_service(target):
    cost = benches.measure_cost(target[0], print)
    assert cost == {name: pytest.approx(0.1) for name in ("CPU-seconds a task", "CPU-seconds a task: worker")}
    assert benches.measure_memory(target[0], print) == {"MiB": 3.0, "MiB: worker": 3.0}


def test_idle_bench_gives_cores_and_reports_every_10_s(target, monkeypatch):
    measured, state = target
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        state.cpu += seconds / 4

    monkeypatch.setattr(benches.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(benches.time, "sleep", sleep)
    lines: list[str] = []
    assert benches.measure_idle(measured, lines.append) == {"cores in use": 0.25, "cores in use: worker": 0.25}
    assert len(lines) == 6


def test_queue_bench_probes_each_size_and_ends_its_runs(target, monkeypatch):
    measured, _ = target
    held, ended, sizes = [], [], []

    @contextmanager
    def closed_pool(api):
        yield lambda tasks: sizes.append(tasks) or sum(held) >= tasks

    def trigger(dag_id, conf):
        held.append(conf["tasks"])
        return dag_id

    measured.api.trigger = trigger
    monkeypatch.setattr(benches, "closed_pool", closed_pool)
    monkeypatch.setattr(benches, "mark_succeeded", lambda api, run: ended.append(run))
    monkeypatch.setattr(benches, "first_task_delay", lambda api, run: sum(held) / 1_000)
    sample = benches.measure_queue(measured, print)
    assert sizes == [100, 1_000, 10_000]
    assert max(held) <= 1_000
    assert ended == ["bench_held"] * len(held)
    assert sample[benches.delay_figure(100)] == 0.1
    assert sample[benches.GROWTH] == pytest.approx(100.0)

    held.clear()
    ended.clear()
    monkeypatch.setattr(benches, "first_task_delay", lambda api, run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benches.measure_queue(measured, print)
    assert ended == ["bench_held"] * len(held) == ["bench_held"]


def test_ui_load_bench_compares_fan_outs_with_and_without(target, monkeypatch):
    responses = Responses([0.1] * 19 + [5.0], failed=2)

    @contextmanager
    def ui_traffic(url, headers):
        yield responses

    monkeypatch.setattr(benches, "ui_traffic", ui_traffic)
    monkeypatch.setattr(benches, "lost_tries", lambda api, run: 3)
    assert benches.measure_ui_load(target[0], print) == {
        benches.FAILED: 2,
        benches.LOST: 3,
        "failed runs": 0,
        benches.SLOWED: 1.0,
        "requests a second": 2.0,
        "seconds a request, p95": 0.1,
    }
