"""A drill on Kubernetes passes only if the ledger and the pods keep its promises."""

from __future__ import annotations

import pytest

from ops.drills.ledger import Entry
from ops.kubernetes import drill_results
from ops.kubernetes.cluster.node_drills import DRILLS as NODE_DRILLS
from ops.kubernetes.pod_drills import DRILLS, LOAD, Observation, evaluate

ALL = (*DRILLS, *NODE_DRILLS)
WORKER, SCHEDULER = (next(each for each in ALL if each.name == f"{name}-pod") for name in ("worker", "scheduler"))


def completed(host="worker-b"):
    """The entries of a load that completes at once, each task at its first try."""
    return [
        Entry(task, index, 1, event, host, 10.0 + offset)
        for task, count in LOAD.items()
        for index in range(count)
        for event, offset in (("start", 0.0), ("end", 1.0))
    ]


def outcome(entries, ready_after=20.0, state="success", drill=WORKER):
    ordered = sorted(entries, key=lambda entry: entry.at)
    return evaluate(drill, Observation(["worker-a"], state, ordered, began=5.0, ready_after=ready_after))


def without(entries, task, index):
    return [entry for entry in entries if entry.key != (task, index)]


def rerun(at):
    """A load of which one long task started on the killed worker and runs again elsewhere."""
    return [
        *without(completed(), "long", 0),
        Entry("long", 0, 1, "start", "worker-a", 4.0),
        Entry("long", 0, 2, "start", "worker-b", at),
        Entry("long", 0, 2, "end", "worker-b", at + 1),
    ]


def test_a_scheduler_drill_passes_where_nothing_is_interrupted():
    found = outcome(completed(), drill=SCHEDULER)
    assert (found.broken, found.tries_lost, found.recovery) == ((), 0, 6.0)


def test_a_task_of_the_killed_pod_may_run_again_in_time():
    found = outcome(rerun(at=40.0))
    assert found.broken == ()
    assert (found.tries_lost, found.own_tasks, found.recovery) == (1, 1, 35.0)


@pytest.mark.parametrize(
    "found",
    [
        outcome(without(rerun(40.0), "short", 0)),
        outcome(rerun(at=80.0)),
        outcome([*rerun(40.0), Entry("short", 0, 1, "end", "worker-b", 20.0)]),
        outcome([*rerun(40.0), Entry("long", 0, 1, "alive", "worker-a", 40.5)]),
        outcome(rerun(40.0), ready_after=500.0),
        outcome(rerun(40.0), state="failed"),
        outcome(completed()),
        outcome(rerun(at=40.0), drill=SCHEDULER),
        outcome([*without(completed(), "short", 0), Entry("short", 0, 1, "end", "b", 90.0)], drill=SCHEDULER),
    ],
    ids=["lost", "late", "twice", "at once", "not ready", "failed", "no target", "a try of another pod", "interrupted"],
)
def test_a_broken_promise_fails_the_drill(found):
    assert len(found.broken) == 1


def test_names_of_drills_are_unique_and_only_lost_workers_lose_tries():
    assert len({each.name for each in ALL}) == len(ALL)
    lossless = {each.name for each in ALL if not each.loses_tries}
    assert lossless == {"scheduler-pod", "api-pod", "execution-api-pod", "drain", "upgrade"}


def test_the_page_of_results_is_that_of_the_recorded_ones():
    assert drill_results.PAGE.read_text() == drill_results.page(ALL, drill_results.read())


def test_new_results_replace_those_of_the_same_drill_only():
    first, second = outcome(rerun(40.0)), outcome(completed(), drill=SCHEDULER)
    recorded = drill_results.merged({}, ALL, [first, second], "here", "2026-11-29")
    later = drill_results.merged(recorded, ALL, [first, outcome(rerun(at=80.0))], "here", "2026-11-30")
    assert [later[name]["date"] for name in ("worker-pod", "scheduler-pod")] == ["2026-11-30", "2026-11-29"]
    row = drill_results.row(WORKER, later["worker-pod"])
    assert "1 of 2 times" in row
    assert "55.0 s (75.0 s)" in row
