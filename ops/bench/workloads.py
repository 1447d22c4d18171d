"""The loads of the benches: their DAG file, and runs that are timed by Airflow's own clock."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ops.clients.airflow import ENDED, run_path
from ops.dag_file import DELETE_SECONDS, DagFile
from ops.errors import FAILURE, StackError
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.clients.airflow import AirflowClient, Run

PAIR, FAN_OUT, HELD, ORDINARY = "bench_pair", "bench_fanout", "bench_held", "bench_ordinary"
POOL = "bench_closed"
"""The pool of HELD's tasks, as in bench_dag.py."""
RUN_SECONDS = 900.0
STALLED_SECONDS = 300.0
"""Longest wait for one answer: an API that UI traffic stalls is a result, not an error."""
POLL_SECONDS = 1.0
REPORT_SECONDS = 10.0


DAGS = DagFile(ROOT / "ops/bench/bench_dag.py", (PAIR, FAN_OUT, HELD, ORDINARY))


@dataclass(frozen=True)
class FinishedRun:
    """A DAG run in a terminal state.

    Attributes:
        run: The run.
        state: success or failed.
        seconds: From the request to the terminal state, by Airflow's clock.
    """

    run: Run
    state: str
    seconds: float


def seconds_between(start: str, end: str) -> float:
    """Return the seconds between two timestamps of the API."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def run_and_wait(
    api: AirflowClient,
    dag_id: str,
    conf: dict[str, Any],
    report: Callable[[str], None],
    *,
    timeout: float = RUN_SECONDS,
    may_fail: bool = False,
) -> FinishedRun:
    """Trigger a run and wait for its terminal state.

    Args:
        api: The REST API of the measured Airflow.
        dag_id: A DAG without another unfinished run.
        conf: Configuration of the run.
        report: Gets a progress line every ten seconds.
        timeout: Seconds.
        may_fail: Return a failed run instead of raising.

    Raises:
        StackError: The run did not finish in time, or failed.
    """
    run = api.trigger(dag_id, conf)
    started = reported_at = time.monotonic()
    while unfinished_runs(api, dag_id):
        now = time.monotonic()
        if now - started > timeout:
            raise StackError(
                f"cannot measure {dag_id}: the run did not finish within {timeout:.0f} s",
                where=api.run_url(run),
                hint="run ./ops/stack status to find unhealthy services",
            )
        if now - reported_at > REPORT_SECONDS:
            report(f"{dag_id} has run for {now - started:.0f} s")
            reported_at = now
        time.sleep(POLL_SECONDS)
    answer = api.ask("GET", run_path(dag_id, run.run_id), wait=STALLED_SECONDS)
    finished = FinishedRun(run, answer["state"], seconds_between(answer["run_after"], answer["end_date"]))
    if finished.state != "success" and not may_fail:
        raise StackError(f"cannot measure {dag_id}: the run failed", where=api.run_url(run), code=FAILURE)
    return finished


def unfinished_runs(api: AirflowClient, dag_id: str) -> int:
    """Return the number of unfinished runs of a DAG.

    A request for the run itself would make Airflow load all its tasks each time.
    """
    answer = api.ask("GET", "/dagStats", params={"dag_ids": dag_id}, wait=STALLED_SECONDS)
    return sum(entry["count"] for dag in answer["dags"] for entry in dag["stats"] if entry["state"] not in ENDED)


def first_task_delay(api: AirflowClient, finished: FinishedRun) -> float:
    """Return the seconds from the request for a run to the start of its first task."""
    requested_at = api.ask("GET", run_path(finished.run.dag_id, finished.run.run_id))["run_after"]
    return min(seconds_between(requested_at, task["start_date"]) for task in api.task_instances(finished.run))


def lost_tries(api: AirflowClient, run: Run) -> int:
    """Return the number of tries before the last one, over all tasks of a run."""
    return sum(max(task["try_number"] - 1, 0) for task in api.task_instances(run))


def active_runs(api: AirflowClient) -> int:
    """Return the number of queued and running runs of all DAGs."""
    path = "/dags/~/dagRuns"
    total: int = api.ask("GET", path, params={"state": ["queued", "running"], "limit": 1})["total_entries"]
    return total


@contextmanager
def closed_pool(api: AirflowClient) -> Iterator[Callable[[int], bool]]:
    """Create a pool without slots for the duration of the block.

    Yields:
        Function that returns whether at least so many tasks wait for the pool.
    """
    path = f"/pools/{POOL}"
    api.ask("DELETE", path, missing=True)
    api.ask("POST", "/pools", json={"name": POOL, "slots": 0, "description": "benches", "include_deferred": False})
    try:
        yield lambda tasks: api.ask("GET", path)["scheduled_slots"] >= tasks
    finally:
        api.ask("DELETE", path, missing=True)


def mark_succeeded(api: AirflowClient, run: Run) -> None:
    """Set a run and its waiting tasks to success; a failure would fire an alert."""
    api.ask("PATCH", run_path(run.dag_id, run.run_id), json={"state": "success"}, timeout=DELETE_SECONDS)
