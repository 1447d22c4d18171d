"""What a bench does on a side, and what it makes of it."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import benches
from ops.bench.targets import Side
from ops.bench.ui_load import Visits
from ops.bench.workloads import Ended


@pytest.fixture
def side(monkeypatch):
    """A side whose runs take a second for each ten tasks, and whose workers use 0.1 CPU-seconds a task."""
    used = SimpleNamespace(cpu=0.0, runs=[], slots=[])

    def run_to_end(api, dag_id, conf, report, *, may_fail=False):
        tasks = conf.get("tasks", 2)
        used.cpu += tasks / 10
        used.runs.append((dag_id, conf))
        return Ended(SimpleNamespace(run_id=str(len(used.runs))), "success", tasks / 10)

    @contextmanager
    def slots(number):
        used.slots.append(number)
        yield
        used.slots.append(None)

    accounting = benches.cgroup_usage
    monkeypatch.setattr(accounting, "containers", lambda project: {"c": ("worker", 1)})
    monkeypatch.setattr(accounting, "read", lambda of: {"c": accounting.Usage("worker", used.cpu, 3 * 1024**2)})
    monkeypatch.setattr(benches, "run_to_end", run_to_end)
    api = SimpleNamespace(url="http://a", authorization=dict)
    return Side("here", "x", {}, api, slots), used


def test_latency_is_the_median_of_its_runs(side):
    assert benches.latency(side[0], print) == {benches.LATENCY: 0.2}
    assert len(side[1].runs) == benches.PAIRS


def test_a_fan_out_is_tasks_a_second_and_cpu_a_task_at_each_size(side):
    sample = benches.fan_out(side[0], print)
    assert {name: pytest.approx(value) for name, value in sample.items()} == {
        "100 tasks: tasks/s": 10,
        "100 tasks: CPU-seconds a task": 0.1,
        "1,000 tasks: tasks/s": 10,
        "1,000 tasks: CPU-seconds a task": 0.1,
    }


def test_slots_are_eight_while_it_is_measured_only(side):
    one, used = side
    assert benches.slots(one, print) == {benches.SLOT_TIME: 30.0}
    assert used.slots == [8, None]
    assert used.runs[-1] == ("bench_fanout", {"tasks": 300, "seconds": 0.5})


def test_cost_and_memory_are_by_service(side):
    cost = benches.cost(side[0], print)
    assert cost == {name: pytest.approx(0.1) for name in ("CPU-seconds a task", "CPU-seconds a task: worker")}
    assert benches.memory(side[0], print) == {"MiB": 3.0, "MiB: worker": 3.0}


def test_idle_is_cores_over_the_time_that_passed_and_is_never_silent(side, monkeypatch):
    one, used = side
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        used.cpu += seconds / 4

    monkeypatch.setattr(benches.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(benches.time, "sleep", sleep)
    said: list[str] = []
    assert benches.idle(one, said.append) == {"cores in use": 0.25, "cores in use: worker": 0.25}
    assert len(said) == 6


def test_a_queue_grows_to_each_size_is_probed_there_and_ended_whatever_happens(side, monkeypatch):
    one, _ = side
    held, ended, sizes = [], [], []

    @contextmanager
    def closed_pool(api):
        yield lambda tasks: sizes.append(tasks) or sum(held) >= tasks

    def trigger(dag_id, conf):
        held.append(conf["tasks"])
        return dag_id

    one.api.trigger = trigger
    monkeypatch.setattr(benches, "closed_pool", closed_pool)
    monkeypatch.setattr(benches, "end", lambda api, run: ended.append(run))
    monkeypatch.setattr(benches, "first_start", lambda api, run: sum(held) / 1_000)
    sample = benches.queue(one, print)
    assert sizes == [100, 1_000, 10_000]
    assert max(held) <= 1_000
    assert ended == ["bench_held"] * len(held)
    assert sample[benches.delay(100)] == 0.1
    assert sample[benches.GROWTH] == pytest.approx(100.0)

    held.clear()
    ended.clear()
    monkeypatch.setattr(benches, "first_start", lambda api, run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benches.queue(one, print)
    assert ended == ["bench_held"] * len(held) == ["bench_held"]


def test_people_are_counted_against_the_same_fan_out_alone(side, monkeypatch):
    seen = Visits([0.1] * 19 + [5.0], failed=2)

    @contextmanager
    def crowd(url, headers):
        yield seen

    monkeypatch.setattr(benches, "crowd", crowd)
    monkeypatch.setattr(benches, "attempts_lost", lambda api, run: 3)
    assert benches.people(side[0], print) == {
        benches.FAILED: 2,
        benches.LOST: 3,
        "failed runs": 0,
        benches.SLOWED: 1.0,
        "requests a second": 2.0,
        "seconds a request, p95": 0.1,
    }
