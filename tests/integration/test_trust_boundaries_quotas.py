"""A task that takes more than its share of a worker fails alone, and its log says why."""

from __future__ import annotations

from tests.stack import Stack


def ended_states(stack: Stack, dag: str, run: str) -> list[tuple[object, object, object]]:
    """Return the name and state of each task instance of a run, and the number of its last try."""
    return sorted((ti["task_id"], ti["state"], ti["try_number"]) for ti in stack.api.task_instances(dag, run))


def test_task_that_leaks_memory_in_forks_ends_alone(stack: Stack):
    run = stack.api.trigger("memory_quota")
    stack.api.wait_for_run("memory_quota", run, timeout=180)
    log = stack.api.log("memory_quota", run, "leak")
    harmless = ("harmless", "success", 1)
    assert ended_states(stack, "memory_quota", run) == [*[harmless] * 4, ("leak", "failed", 1)], log
    assert "TASK_MEMORY_LIMIT" in log
