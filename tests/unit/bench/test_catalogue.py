"""What a bench does on a side, and what it makes of it."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops.bench import catalogue
from ops.bench.loads import Ended
from ops.bench.people import Visits
from ops.bench.side import Side


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

    accounting = catalogue.accounting
    monkeypatch.setattr(accounting, "containers", lambda project: {"c": ("worker", 1)})
    monkeypatch.setattr(accounting, "read", lambda of: {"c": accounting.Usage("worker", used.cpu, 3 * 1024**2)})
    monkeypatch.setattr(catalogue, "run_to_end", run_to_end)
    api = SimpleNamespace(url="http://a", authorization=dict)
    return Side("here", "x", {}, api, slots), used


def test_latency_is_the_median_of_its_runs(side):
    assert catalogue.latency(side[0], print) == {catalogue.LATENCY: 0.2}
    assert len(side[1].runs) == catalogue.PAIRS


def test_a_fan_out_is_tasks_a_second_and_cpu_a_task_at_each_size(side):
    sample = catalogue.fan_out(side[0], print)
    assert {name: pytest.approx(value) for name, value in sample.items()} == {
        "100 tasks: tasks/s": 10,
        "100 tasks: CPU-seconds a task": 0.1,
        "1,000 tasks: tasks/s": 10,
        "1,000 tasks: CPU-seconds a task": 0.1,
    }


def test_slots_are_eight_while_it_is_measured_only(side):
    one, used = side
    assert catalogue.slots(one, print) == {catalogue.SLOT_TIME: 30.0}
    assert used.slots == [8, None]
    assert used.runs[-1] == ("bench_fanout", {"tasks": 300, "seconds": 0.5})


def test_cost_and_memory_are_by_service(side):
    cost = catalogue.cost(side[0], print)
    assert cost == {name: pytest.approx(0.1) for name in ("CPU-seconds a task", "CPU-seconds a task: worker")}
    assert catalogue.memory(side[0], print) == {"MiB": 3.0, "MiB: worker": 3.0}


def test_idle_is_cores_over_the_time_that_passed_and_is_never_silent(side, monkeypatch):
    one, used = side
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        used.cpu += seconds / 4

    monkeypatch.setattr(catalogue.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(catalogue.time, "sleep", sleep)
    said: list[str] = []
    assert catalogue.idle(one, said.append) == {"cores in use": 0.25, "cores in use: worker": 0.25}
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
    monkeypatch.setattr(catalogue, "closed_pool", closed_pool)
    monkeypatch.setattr(catalogue, "end", lambda api, run: ended.append(run))
    monkeypatch.setattr(catalogue, "first_start", lambda api, run: sum(held) / 1_000)
    sample = catalogue.queue(one, print)
    assert sizes == [100, 1_000, 10_000]
    assert max(held) <= 1_000
    assert ended == ["bench_held"] * len(held)
    assert sample[catalogue.delay(100)] == 0.1
    assert sample[catalogue.GROWTH] == pytest.approx(100.0)

    held.clear()
    ended.clear()
    monkeypatch.setattr(catalogue, "first_start", lambda api, run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        catalogue.queue(one, print)
    assert ended == ["bench_held"] * len(held) == ["bench_held"]


def test_people_are_counted_against_the_same_fan_out_alone(side, monkeypatch):
    seen = Visits([0.1] * 19 + [5.0], failed=2)

    @contextmanager
    def crowd(url, headers):
        yield seen

    monkeypatch.setattr(catalogue, "crowd", crowd)
    monkeypatch.setattr(catalogue, "attempts_lost", lambda api, run: 3)
    assert catalogue.people(side[0], print) == {
        catalogue.FAILED: 2,
        catalogue.LOST: 3,
        "failed runs": 0,
        catalogue.SLOWED: 1.0,
        "requests a second": 2.0,
        "seconds a request, p95": 0.1,
    }
