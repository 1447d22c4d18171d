"""A drill on Kubernetes passes only if the ledger and the pods keep its promises."""

from __future__ import annotations

import pytest

from ops.drills.ledger import Entry
from ops.kubernetes.pod_drills import DRILLS, LOAD, PodOutcome

WORKER = DRILLS["worker-pod"]


def completed(host="worker-b"):
    """The entries of a load that completes at once, each task at its first try."""
    return [
        Entry(task, index, 1, event, host, 10.0 + offset)
        for task, count in LOAD.items()
        for index in range(count)
        for event, offset in (("start", 0.0), ("end", 1.0))
    ]


def outcome(entries, ready_after=20.0, state="success"):
    ordered = sorted(entries, key=lambda entry: entry.at)
    return PodOutcome(WORKER, ["worker-a"], state, ordered, began=5.0, ready_after=ready_after)


def interrupted(rerun_at):
    """The same, but one long task started on the killed worker and runs again elsewhere."""
    kept = [entry for entry in completed() if entry.key != ("long", 0)]
    return [
        *kept,
        Entry("long", 0, 1, "start", "worker-a", 4.0),
        Entry("long", 0, 2, "start", "worker-b", rerun_at),
        Entry("long", 0, 2, "end", "worker-b", rerun_at + 1),
    ]


def test_a_load_that_nothing_interrupts_passes():
    assert outcome(completed()).passed


def test_a_task_of_the_killed_pod_may_run_again_in_time():
    found = outcome(interrupted(rerun_at=40.0))
    assert found.passed
    assert (found.tries_lost, found.own_tasks, found.rerun) == (1, 1, 35.0)


@pytest.mark.parametrize(
    "found",
    [
        outcome(completed()[2:]),  # a task lost
        outcome(interrupted(rerun_at=80.0)),  # too late
        outcome([*completed(), Entry("short", 0, 2, "end", "worker-b", 20.0)]),  # twice
        outcome(completed(), ready_after=500.0),
        outcome(completed(), state="failed"),
    ],
    ids=["lost", "late", "twice", "not ready", "failed"],
)
def test_a_broken_promise_fails_the_drill(found):
    assert not found.passed
    assert found.broken
