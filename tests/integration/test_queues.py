"""Tasks of a queue without a worker delay no other task, and an added worker service runs them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from ops.compose_override import path as override_path
from ops.project import ROOT
from tests.stack import Stack, docker, wait_until

EXAMPLE = ROOT / "compose/compose.override.example.yaml"
FINDING_SECONDS = 120.0
BEGIN_SECONDS = 15.0


@pytest.fixture
def own_worker_stack(healthy_stack: Stack) -> Iterator[Stack]:
    """Write the example's override, which the next `up` applies."""
    if override_path(healthy_stack.project):
        pytest.skip("the stack has an override of its own")
    target = healthy_stack.state / "compose.override.yaml"
    shutil.copy(EXAMPLE, target)
    try:
        yield healthy_stack
    finally:
        target.unlink()
        if own := [container.id for container in healthy_stack.containers("worker-gpu", include_exited=True)]:
            docker("rm", "--force", "--volumes", *own)
        healthy_stack.command("scale", "worker=2")  # so that the expected replicas lack the service again


def states(stack: Stack, dag_id: str, run: str) -> set[str | None]:
    return {ti["state"] for ti in stack.api.task_instances(dag_id, run, "work")}


def count(stack: Stack, run: str, state: str) -> int:
    """Return how many of a run's tasks for the own queue are in a state."""
    return [ti["state"] for ti in stack.api.task_instances("own_queue", run, "work")].count(state)


def redis_length(stack: Stack, queue: str) -> int:
    (redis,) = stack.containers("redis")
    command = f"REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password) redis-cli --user operator llen {queue}"
    return int(redis.execute("sh", "-c", command).stdout)


def end(stack: Stack, dag_id: str, run: str) -> None:
    stack.api.http.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run}", json={"state": "failed"}).raise_for_status()


def test_a_queue_without_worker_alerts_and_a_new_worker_runs_it(own_worker_stack: Stack):
    stack, api = own_worker_stack, own_worker_stack.api
    since = time.time()
    misspelt = api.trigger("misspelt_queue")
    waiting = api.trigger("own_queue")
    load = api.trigger("load", tasks=20, seconds=1)
    try:
        wait_until(lambda: states(stack, "misspelt_queue", misspelt) == {"scheduled"}, timeout=30, what="40 tasks wait")
        # No other task waits for them, and no message is published.
        assert api.wait_for_run("load", load, timeout=60) == "success"
        assert states(stack, "own_queue", waiting) == {"scheduled"}
        assert (redis_length(stack, "gqu"), redis_length(stack, "gpu")) == (0, 0)

        stack.command("up")
        status = {service["name"]: service for service in stack.status()["services"]}
        assert status["worker-gpu"]["wanted"] == status["worker-gpu"]["healthy"] == 1
        assert api.wait_for_run("own_queue", waiting, timeout=BEGIN_SECONDS) == "success"
        (own,) = stack.containers("worker-gpu")
        assert {ti["hostname"] for ti in api.task_instances("own_queue", waiting, "work")} == {own.id[:12]}

        assert states(stack, "misspelt_queue", misspelt) == {"scheduled"}
        # One message may name several queues.
        received = wait_until(
            lambda: [
                message
                for message in stack.slack.received(since, "AirflowQueueWithoutWorker", firing=True)
                if "gqu" in (text := message.title + message.text) and "40" in text
            ],
            timeout=FINDING_SECONDS,
            what="the queue without a worker is in Slack",
        )
        assert received[0].received - since < FINDING_SECONDS
    finally:
        end(stack, "misspelt_queue", misspelt)


@pytest.mark.nightly
def test_slots_of_a_queue_whose_workers_vanished_are_free_again(own_worker_stack: Stack):
    stack, api = own_worker_stack, own_worker_stack.api
    stack.command("up")
    stack.command("scale", "worker-gpu=2")
    assert stack.settings["WORKER_GPU_REPLICAS"] == "2"
    workers = stack.containers("worker-gpu")
    assert len(workers) == 2
    run = api.trigger("own_queue")
    assert api.wait_for_run("own_queue", run, timeout=60) == "success"
    for worker in workers:
        worker.kill()

    # The workers still count as present: of twelve tasks eight are queued, four for their slots and four ahead.
    abandoned = api.trigger("own_queue")
    wait_until(lambda: states(stack, "own_queue", abandoned) == {"queued"}, timeout=30, what="six tasks are queued")
    failed = api.trigger("own_queue")
    wait_until(lambda: count(stack, failed, "queued") == 2, timeout=30, what="two more are queued")
    assert count(stack, failed, "scheduled") == 4
    end(stack, "own_queue", failed)
    # The one's slots leak no longer, the other's return with its tasks.
    wait_until(lambda: states(stack, "own_queue", abandoned) == {"scheduled"}, timeout=120, what="they are scheduled")
    wait_until(
        lambda: stack.prometheus.value("sum(airflow_executor_running_tasks)") == 0, timeout=60, what="no slot is held"
    )
    assert redis_length(stack, "gpu") <= 6
    workers[0].start()
    assert api.wait_for_run("own_queue", abandoned, timeout=90) == "success"
