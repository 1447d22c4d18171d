"""Workers are added at once, and removed only after a window of lower demand."""

from __future__ import annotations

import pytest

from ops import settings_file
from ops.autoscaling.decision import LONGEST_GAP, Autoscaler, Demand
from ops.errors import StackError
from ops.worker_bounds import DEFAULT_FLOOR, Bounds, bounds, default_slots, most_workers

BOUNDS = Bounds(floor=2, ceiling=6, slots=8)
WINDOW = 300.0
STEP = 5.0


class Workers:
    """A number of workers that follows every decision, on a clock that steps."""

    def __init__(self, count: int = 2, limits: Bounds = BOUNDS) -> None:
        self.autoscaler = Autoscaler(WINDOW)
        self.limits = limits
        self.count = count
        self.now = 1000.0
        self.changes: list[tuple[float, int]] = []

    def load(self, tasks: int | None, seconds: float = STEP) -> int:
        """Keep a number of tasks for some time, None for tasks that cannot be counted; return the workers after it."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            if tasks is None:
                self.autoscaler.forget()
                continue
            decision = self.autoscaler.decide(
                self.now, self.limits, self.count, Demand(max(tasks - 8, 0), min(tasks, 8))
            )
            if decision.workers != self.count:
                self.changes.append((self.now, decision.workers))
            self.count = decision.workers
        return self.count


@pytest.mark.parametrize(
    ("tasks", "workers"), [(0, 2), (16, 2), (17, 3), (24, 3), (25, 4), (48, 6), (49, 6), (1000, 6)]
)
def test_a_backlog_adds_workers_at_the_next_count(tasks, workers):
    assert Workers().load(tasks) == workers


def test_lower_demand_removes_workers_after_the_whole_window():
    workers = Workers()
    assert workers.load(40, 60) == 5
    assert workers.load(0, WINDOW) == 5, "the last high count is not older than the window"
    assert workers.load(0) == 2


def test_as_many_workers_stay_as_the_peak_of_the_window_needed():
    workers = Workers()
    workers.load(48, 60)
    workers.load(0, 100)
    workers.load(30, 10)
    assert workers.load(0, 200) == 4
    assert [count for _, count in workers.changes] == [6, 4]


def test_load_that_comes_and_goes_changes_the_number_once():
    workers = Workers()
    for _ in range(20):
        workers.load(40, 30)
        workers.load(0, WINDOW - 30)
    assert [count for _, count in workers.changes] == [5]


def test_demand_that_grows_step_by_step_never_removes_a_worker():
    workers = Workers()
    for tasks in range(0, 60, 2):
        workers.load(tasks, 60)
    counts = [count for _, count in workers.changes]
    assert counts == sorted(counts) == [3, 4, 5, 6]


def test_tasks_that_cannot_be_counted_change_nothing():
    workers = Workers()
    workers.load(40, 60)
    assert workers.load(None, 3 * WINDOW) == 5
    assert workers.load(0, WINDOW) == 5, "the window starts again"
    assert workers.load(0, 2 * STEP) == 2


def test_one_unknown_count_restarts_the_window():
    workers = Workers()
    workers.load(40, 60)
    workers.load(0, WINDOW - STEP)
    workers.load(None)
    assert workers.load(0, WINDOW) == 5


def test_time_without_a_count_is_unknown():
    workers = Workers()
    workers.load(40, 60)
    workers.now += LONGEST_GAP + WINDOW
    assert workers.load(0, WINDOW) == 5


def test_a_new_process_knows_nothing_of_the_window():
    assert Workers(count=6).load(0, WINDOW) == 6


def test_a_manual_scale_out_lasts_for_the_window():
    workers = Workers()
    workers.load(0, 2 * WINDOW)
    workers.count = 5
    assert workers.load(0, WINDOW) == 5
    assert workers.load(0, 2 * STEP) == 2


def test_a_manual_scale_in_is_reverted_only_by_demand():
    workers = Workers()
    workers.load(40, 60)
    workers.count = 3
    assert workers.load(20, 2 * WINDOW) == 3
    assert workers.load(40) == 5


def test_a_number_below_the_floor_is_raised_at_once():
    assert Workers(count=1).load(0) == 2


def test_a_number_above_the_ceiling_is_lowered_after_the_window():
    workers = Workers(count=9)
    assert workers.load(100, WINDOW) == 9
    assert workers.load(100, 2 * STEP) == 6


def test_floor_and_ceiling_may_be_equal():
    workers = Workers(count=4, limits=Bounds(floor=4, ceiling=4, slots=8))
    workers.load(100, WINDOW)
    workers.load(0, 3 * WINDOW)
    assert workers.changes == []


def test_without_a_ceiling_there_is_no_autoscaling():
    assert bounds({"WORKER_REPLICAS": "2", "WORKER_FLOOR": "3", "WORKER_CEILING": ""}) is None


def test_floor_and_slots_have_defaults():
    assert bounds({"WORKER_CEILING": "4"}) == Bounds(DEFAULT_FLOOR, 4, default_slots())


def test_memory_is_budgeted_for_the_ceiling():
    assert most_workers({"WORKER_REPLICAS": "2", "WORKER_CEILING": "7"}) == 7
    assert most_workers({"WORKER_REPLICAS": "9", "WORKER_CEILING": "7"}) == 9


@pytest.mark.parametrize("text", ["WORKER_FLOOR=5\nWORKER_CEILING=4", "WORKER_CEILING=1"])
def test_a_floor_above_the_ceiling_is_refused(project, text):
    project.env_file.write_text(f"{text}\n")
    with pytest.raises(StackError, match="below the floor"):
        settings_file.read(project)


@pytest.mark.parametrize("text", ["WORKER_FLOOR=0", "WORKER_CEILING=21", "WORKER_CEILING=many"])
def test_a_bound_that_is_no_number_of_workers_is_refused(project, text):
    project.env_file.write_text(f"{text}\n")
    with pytest.raises(StackError, match="1 to 20"):
        settings_file.read(project)
