"""A worker that is unreachable for longer than a task token is valid ends its tasks and frees their slots.

Tokens are short here, so that each test takes two minutes; the drills worker-frozen-1260 and worker-cut-1260 check the
same in real time. Both run every night. This file runs last, by its name: a stack of the tests' own keeps the short
tokens until it is removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ops import compose
from ops.compose_override import path as override_path
from ops.drills import faults
from tests.integration.test_tasks_survive import SLOTS, start_load
from tests.stack import Container, Stack, wait_until

pytestmark = pytest.mark.nightly

TOKEN_SECONDS, LEEWAY_SECONDS = 15, 15
"""A token of 30 s or less is reissued at each heartbeat (JWTReissueMiddleware)."""
AWAY_SECONDS = 50.0
"""Longer than a token is accepted, and than the lease of 30 s."""
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
    """Give the stack short tokens, and its workers these settings; the running stack gets its own back."""
    if override_path(stack.project):
        pytest.skip("the stack has an override of its own")
    target = stack.state / "compose.override.yaml"
    target.write_text(OVERRIDE.format(token=TOKEN_SECONDS, leeway=LEEWAY_SECONDS, worker=worker))
    try:
        recreate(stack)
        yield
    finally:
        target.unlink()
        if stack.project.is_default:
            recreate(stack)


def recreate(stack: Stack) -> None:
    """Apply the override to the services that it names; `./ops/stack up` would migrate the database again."""
    compose.run(stack.project, print, "up", "--detach", "--no-deps", "execution-api", "worker")
    wait_until(stack.ready, timeout=120, what="the recreated services are healthy")


def hold_outage(stack: Stack, outages: dict[str, faults.FaultKind]) -> tuple[str, set[int]]:
    """Inject faults into workers for AWAY_SECONDS; return a run, and the map indexes of its tasks on them.

    Args:
        stack: The stack.
        outages: The fault of each worker, by container id.
    """
    # None ends by itself before its lease does.
    run = start_load(stack, tasks=SLOTS, seconds=45, running=SLOTS, retry_seconds=5)
    hosts = {container[:12] for container in outages}
    interrupted = {
        int(ti["map_index"]) for ti in stack.api.in_state("load", run, "work", "running") if ti["hostname"] in hosts
    }
    assert interrupted
    with ExitStack() as outage:
        for container, fault in outages.items():
            outage.callback(faults.inject(fault, [container]))
        ends = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < ends:  # the outage is that long
            time.sleep(0.5)
    return run, interrupted


def suspended(worker: Container) -> bool:
    return "suspended" in worker.execute("python", "-S", "-m", "airflow_ha.health", "worker", check=False).stdout


def assert_slots_are_free(stack: Stack, run: str, interrupted: set[int], reason: str) -> None:
    assert stack.api.wait_for_run("load", run, timeout=240) == "success"
    tries = {int(ti["map_index"]): int(ti["try_number"]) for ti in stack.api.task_instances("load", run, "work")}
    assert {number for number, count in tries.items() if count > 1} == interrupted, "other workers lose no try"

    def none_is_suspended() -> bool:
        return not any(suspended(worker) for worker in stack.containers("worker"))

    wait_until(none_is_suspended, timeout=60, what="no task of a worker is suspended")

    def logs_name_the_reason() -> bool:
        return all(reason in stack.api.log("load", run, "work", map_index=number) for number in interrupted)

    wait_until(logs_name_the_reason, timeout=60, what="the log of each first try names the reason")
    # All slots of both workers run a task at the same time.
    again = start_load(stack, tasks=SLOTS, seconds=10, running=SLOTS)
    assert stack.api.wait_for_run("load", again, timeout=120) == "success"


def test_workers_with_expired_tokens_free_their_slots(healthy_stack: Stack):
    with overridden(healthy_stack, {}):
        frozen, cut = healthy_stack.containers("worker")
        run, interrupted = hold_outage(healthy_stack, {frozen.id: "freeze", cut.id: "cut"})
        assert_slots_are_free(healthy_stack, run, interrupted, "refuses this task's token")


def test_a_long_partition_of_a_worker_frees_its_slots(healthy_stack: Stack):
    with overridden(healthy_stack, {"AIRFLOW_HA_TASK_SUSPENSION_LIMIT": str(LIMIT_SECONDS)}):
        run, interrupted = hold_outage(healthy_stack, {healthy_stack.containers("worker")[0].id: "cut"})
        assert_slots_are_free(healthy_stack, run, interrupted, "TASK_SUSPENSION_LIMIT")
