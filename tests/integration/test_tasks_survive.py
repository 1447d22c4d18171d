"""Under load a component crashes, or UI traffic is heavy: the run succeeds and no try is lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest

from ops.bench.ui_load import CLIENTS, TIMEOUT
from tests.stack import Stack, wait_until

TASKS = 30
SLOTS = 16
"""Two workers of eight: so many of the tasks run at once."""


def start_load(stack: Stack, *, tasks: int, seconds: float, running: int, **more: float) -> str:
    """Start a run, and return its id once this number of its tasks is running."""
    run = stack.api.trigger("load", tasks=tasks, seconds=seconds, **more)
    wait_until(
        lambda: len(stack.api.in_state("load", run, "work", "running")) >= running,
        timeout=90,
        what=f"{running} tasks of {run} are running",
    )
    return run


def tries(stack: Stack, run: str) -> list[int]:
    return [int(ti["try_number"]) for ti in stack.api.task_instances("load", run, "work")]


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


# The drill `host` of every run ends a scheduler too; all of them are ended every night.
@pytest.mark.parametrize(
    "service",
    [
        "execution-api",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("scheduler", "api-server", "gateway")),
    ],
)
def test_a_killed_component_costs_no_try(healthy_stack: Stack, service: str):
    run = start_load(healthy_stack, tasks=TASKS, seconds=10, running=SLOTS)
    target = healthy_stack.containers(service)[0]
    target.crash()
    assert healthy_stack.api.wait_for_run("load", run, timeout=180) == "success"
    assert tries(healthy_stack, run) == [1] * TASKS
    restarted = target.inspect()
    assert restarted["RestartCount"] >= 1
    assert restarted["State"]["Running"]


# The drill `host` of every run ends a worker beside the primaries; `worker-crash` ends one alone every night.
@pytest.mark.nightly
def test_tasks_of_a_killed_worker_run_again_within_45_s(healthy_stack: Stack):
    target = healthy_stack.containers("worker")[0]
    run = start_load(healthy_stack, tasks=SLOTS, seconds=30, running=SLOTS)
    lost = {
        ti["map_index"]
        for ti in healthy_stack.api.in_state("load", run, "work", "running")
        if ti["hostname"] == target.id[:12]
    }
    assert lost
    target.crash()
    killed = time.time()
    assert healthy_stack.api.wait_for_run("load", run, timeout=240) == "success"

    instances = healthy_stack.api.task_instances("load", run, "work")
    again = {ti["map_index"]: at(ti["start_date"]) - killed for ti in instances if ti["try_number"] > 1}
    print(f"{len(again)} tasks ran again, {min(again.values()):.0f} to {max(again.values()):.0f} s after the kill")
    assert set(again) == lost, "only the killed worker's tries are lost"
    assert max(again.values()) < 45


def test_queued_tasks_start_within_60_s_of_redis_returning(healthy_stack: Stack):
    run = start_load(healthy_stack, tasks=60, seconds=2, running=8)
    (redis,) = healthy_stack.containers("redis")
    redis.kill()
    outage_ends = time.monotonic() + 3
    while time.monotonic() < outage_ends:  # the outage that the claim names: 3 s
        time.sleep(0.1)
    redis.start()
    returned = time.time()
    assert healthy_stack.api.wait_for_run("load", run, timeout=240) == "success"
    waits = [
        at(ti["start_date"]) - max(returned, at(ti["queued_when"]))
        for ti in healthy_stack.api.task_instances("load", run, "work")
    ]
    print(f"the longest wait after Redis returned: {max(waits):.1f} s")
    assert max(waits) < 60
    assert tries(healthy_stack, run) == [1] * 60


def test_heavy_ui_traffic_does_not_reach_tasks(healthy_stack: Stack):
    run = start_load(healthy_stack, tasks=100, seconds=0.5, running=1)
    token = healthy_stack.api.http.headers["Authorization"]
    ends = time.monotonic() + 25

    def browse(_: int) -> list[tuple[float, int | str]]:
        answers: list[tuple[float, int | str]] = []
        url = f"/api/v2/dags/load/dagRuns/{run}/taskInstances"
        with httpx.Client(
            base_url=healthy_stack.airflow_url, headers={"Authorization": token}, timeout=TIMEOUT
        ) as client:
            while time.monotonic() < ends:
                asked = time.monotonic()
                try:
                    outcome: int | str = client.get(url, params={"limit": 100}).status_code
                except httpx.HTTPError as error:
                    outcome = repr(error)
                answers.append((time.monotonic() - asked, outcome))
        return answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [answer for answers in clients.map(browse, range(CLIENTS)) for answer in answers]
    assert healthy_stack.api.wait_for_run("load", run, timeout=180) == "success"
    print(f"{len(answers)} requests, the slowest {max(seconds for seconds, _ in answers):.1f} s")
    assert [outcome for _, outcome in answers if outcome != httpx.codes.OK] == []
    # The limit of the bench `ui-load`: UI requests wait because tasks have more CPU weight; up to 11 s seen.
    assert max(seconds for seconds, _ in answers) < TIMEOUT
    assert tries(healthy_stack, run) == [1] * 100
