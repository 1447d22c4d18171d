"""A worker that was away for longer than a task's token lives ends what it held: its slots are free.

With short tokens; the drills worker-frozen-1260 and worker-cut-1260 hold the same in real time, every night.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ops.compose_override import path as override_path
from ops.drills import faults
from tests.integration.test_tasks_survive import SLOTS, start_load
from tests.stack import Container, Stack, wait_until

TOKEN_SECONDS, LEEWAY_SECONDS = 30, 30
"""A token of 30 s or less is reissued at each heartbeat (JWTReissueMiddleware)."""
AWAY_SECONDS = 100.0
"""Longer than that, and than the lease of 30 s."""
LIMIT_SECONDS = 20
OVERRIDE = """
services:
  execution-api:
    environment:
      AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME: "{token}"
      AIRFLOW__API_AUTH__JWT_LEEWAY: "{leeway}"
  worker:
    environment: {worker}
"""


@contextmanager
def overridden(stack: Stack, worker: dict[str, str]) -> Iterator[None]:
    """Give the stack short tokens, and its workers these settings, for as long as the block lasts."""
    if override_path(stack.project):
        pytest.skip("the stack has an override of its own")
    target = stack.state / "compose.override.yaml"
    target.write_text(OVERRIDE.format(token=TOKEN_SECONDS, leeway=LEEWAY_SECONDS, worker=worker))
    try:
        stack.command("up")
        yield
    finally:
        target.unlink()
        stack.command("up")


@pytest.fixture(scope="module")
def short_tokens(stack: Stack) -> Iterator[None]:
    with overridden(stack, {}):
        yield


def strike(stack: Stack, fault: faults.FaultKind) -> tuple[str, Container, set[int]]:
    """Take a worker away for AWAY_SECONDS; return the run that it had tasks of, the worker, and which they were."""
    victim = stack.containers("worker")[0]
    # None ends by itself before its lease does.
    run = start_load(stack, tasks=SLOTS, seconds=60, running=SLOTS)
    held = {
        int(ti["map_index"])
        for ti in stack.api.in_state("load", run, "work", "running")
        if ti["hostname"] == victim.id[:12]
    }
    assert held
    heal = faults.strike(fault, [victim.id])
    try:
        ends = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < ends:  # the outage is that long
            time.sleep(0.5)
    finally:
        heal()
    return run, victim, held


def suspended(worker: Container) -> bool:
    return "suspended" in worker.execute("python", "-S", "-m", "airflow_ha.health", "worker", check=False).stdout


def assert_slots_are_free(stack: Stack, run: str, victim: Container, held: set[int], reason: str) -> None:
    assert stack.api.wait_for_run("load", run, timeout=240) == "success"
    tries = {int(ti["map_index"]): int(ti["try_number"]) for ti in stack.api.task_instances("load", run, "work")}
    assert {number for number, count in tries.items() if count > 1} == held, "only the tries of that worker are lost"
    wait_until(lambda: not suspended(victim), timeout=60, what="no task of the worker is suspended")

    def logs_name_the_reason() -> bool:
        return all(reason in stack.api.log("load", run, "work", map_index=number) for number in held)

    wait_until(logs_name_the_reason, timeout=60, what="the log of each first try says why it ended")
    # As many as both workers have slots run at once.
    again = start_load(stack, tasks=SLOTS, seconds=10, running=SLOTS)
    assert stack.api.wait_for_run("load", again, timeout=120) == "success"


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize("fault", ["freeze", "cut"])
def test_a_worker_that_returns_after_its_tokens_expired_frees_its_slots(healthy_stack: Stack, fault: faults.FaultKind):
    run, victim, held = strike(healthy_stack, fault)
    assert_slots_are_free(healthy_stack, run, victim, held, "refuses this task's token")


@pytest.mark.nightly
def test_a_worker_that_is_cut_off_for_longer_than_a_suspension_frees_its_slots(healthy_stack: Stack):
    with overridden(healthy_stack, {"AIRFLOW_HA_TASK_SUSPENSION_LIMIT": str(LIMIT_SECONDS)}):
        run, victim, held = strike(healthy_stack, "cut")
        assert_slots_are_free(healthy_stack, run, victim, held, "TASK_SUSPENSION_LIMIT")
