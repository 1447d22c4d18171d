"""Autoscaling adds a worker for a backlog, and removes it with its tasks finished, without a second try."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ops.project import ROOT
from tests.stack import Stack, wait_until

SCALE_OUT_SECONDS = 30.0
WINDOW_SECONDS = 20.0
TASK_SECONDS = 45
"""Longer than the window, so that a worker drains with tasks; shorter than the tests' WORKER_STOP_GRACE."""


@pytest.fixture
def output(healthy_stack: Stack, tmp_path: Path) -> Iterator[Path]:
    """Run `autoscale` with a floor of two and a ceiling of three; return the file of its output."""
    stack, path = healthy_stack, tmp_path / "autoscale.log"
    before = stack.project.env_file.read_text()
    bounds = ("--floor=2", "--ceiling=3", f"--scale-in-after={WINDOW_SECONDS:.0f}")
    # Raises the parallelism, which replaces the schedulers; and a stack without load needs no change.
    stack.command("autoscale", *bounds, "--once")
    with path.open("w") as file:
        environment = {**os.environ, "STACK_STATE_DIR": str(stack.state)}
        command = [ROOT / "ops" / "stack", "autoscale", *bounds]
        child = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield path
            assert child.poll() is None, path.read_text()
        finally:
            child.terminate()
            child.wait(timeout=60)
            stack.project.env_file.write_text(before)
            stack.command("up")


def third_worker(stack: Stack) -> str | None:
    """Return the id of the third worker that runs; None if there is none."""
    running = stack.containers("worker")
    return running[2].id[:12] if len(running) == 3 else None


def tries(stack: Stack, run: str) -> set[int]:
    return {ti["try_number"] for ti in stack.api.task_instances("load", run, "work")}


def running_on(stack: Stack, worker: str, run: str) -> int:
    """Return how many tasks of a run are running on a worker."""
    return sum(ti["hostname"] == worker for ti in stack.api.in_state("load", run, "work", "running"))


def expected_workers(stack: Stack) -> float | None:
    return stack.prometheus.value('max(airflow_ha_instances_wanted{component="worker"})')


@pytest.mark.nightly
def test_a_worker_comes_with_a_backlog_and_drains_after_it(healthy_stack: Stack, output: Path):
    stack, api = healthy_stack, healthy_stack.api
    slots = int(stack.settings["WORKER_CONCURRENCY"])
    assert len(stack.containers("worker")) == 2

    backlog = api.trigger("load", tasks=6 * slots, seconds=5)
    triggered = time.monotonic()
    added = wait_until(partial(third_worker, stack), timeout=SCALE_OUT_SECONDS, what="a third worker runs")
    assert time.monotonic() - triggered <= SCALE_OUT_SECONDS, output.read_text()
    wait_until(lambda: expected_workers(stack) == 3, timeout=30, what="alerts expect three workers")
    # The ceiling is three, however many tasks wait.
    assert api.wait_for_run("load", backlog, timeout=180) == "success"
    assert len(stack.containers("worker")) == 3

    # Fewer tasks than two workers have slots, while all three take them.
    lasting = api.trigger("load", tasks=max(slots, 2 * slots - 4), seconds=TASK_SECONDS)
    wait_until(lambda: running_on(stack, added, lasting), timeout=15, what="the third worker has a task")
    wait_until(lambda: f"draining: {added}" in output.read_text(), timeout=60, what="the third worker drains")
    assert running_on(stack, added, lasting), "it drains while it has tasks"
    wait_until(lambda: expected_workers(stack) == 2, timeout=30, what="alerts expect two workers")
    assert api.wait_for_run("load", lasting, timeout=120) == "success"
    wait_until(
        lambda: added not in {each.id[:12] for each in stack.containers("worker", include_exited=True)},
        timeout=60,
        what="the third worker is removed",
    )
    assert tries(stack, backlog) | tries(stack, lasting) == {1}
    assert stack.settings["WORKER_REPLICAS"] == "2"
