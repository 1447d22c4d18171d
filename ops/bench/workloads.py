"""The loads as the benches use them: their DAGs in place, their runs from the request to the end."""

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
"""An API that people have brought to a stand is a result, and no reason to end."""
POLL_SECONDS = 1.0
"""Between two questions whether a run has ended; its time is by Airflow's own clock."""
REPORT_SECONDS = 10.0


DAGS = DagFile(ROOT / "ops/bench/bench_dag.py", (PAIR, FAN_OUT, HELD, ORDINARY))


@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Attributes:
        run: which.
        state: success or failed.
        seconds: from the request to the end, by Airflow's own clock.
    """

    run: Run
    state: str
    seconds: float


def seconds_between(start: str, end: str) -> float:
    """Between two moments as the API writes them."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def run_to_end(
    api: AirflowClient,
    dag_id: str,
    conf: dict[str, Any],
    report: Callable[[str], None],
    *,
    timeout: float = RUN_SECONDS,
    may_fail: bool = False,
) -> Ended:
    """Starts a run and waits for its end.

    Args:
        api: Whose.
        dag_id: of which DAG, of which no other run is under way.
        conf: with this.
        report: Hears every ten seconds.
        timeout: Seconds.
        may_fail: whether a run that fails is a result too.

    Raises:
        StackError: It has not ended in time, or failed.
    """
    run = api.trigger(dag_id, conf)
    started = said_at = time.monotonic()
    while unended(api, dag_id):
        now = time.monotonic()
        if now - started > timeout:
            raise StackError(
                f"{dag_id} has not ended after {timeout:.0f} s", where=api.run_url(run), hint="./ops/stack status"
            )
        if now - said_at > REPORT_SECONDS:
            report(f"{dag_id} has run for {now - started:.0f} s")
            said_at = now
        time.sleep(POLL_SECONDS)
    answer = api.ask("GET", run_path(dag_id, run.run_id), wait=STALLED_SECONDS)
    ended = Ended(run, answer["state"], seconds_between(answer["run_after"], answer["end_date"]))
    if ended.state != "success" and not may_fail:
        raise StackError(f"{dag_id} has failed", where=api.run_url(run), code=FAILURE)
    return ended


def unended(api: AirflowClient, dag_id: str) -> int:
    """How many runs of a DAG have not ended: to ask for a run itself makes Airflow load all its tasks each time."""
    answer = api.ask("GET", "/dagStats", params={"dag_ids": dag_id}, wait=STALLED_SECONDS)
    return sum(one["count"] for dag in answer["dags"] for one in dag["stats"] if one["state"] not in ENDED)


def first_start(api: AirflowClient, ended: Ended) -> float:
    """Seconds from the request for a run until the first of its tasks ran."""
    asked = api.ask("GET", run_path(ended.run.dag_id, ended.run.run_id))["run_after"]
    return min(seconds_between(asked, one["start_date"]) for one in api.task_instances(ended.run))


def attempts_lost(api: AirflowClient, run: Run) -> int:
    """How many attempts of a run's tasks did not count: those before each one's last."""
    return sum(max(one["try_number"] - 1, 0) for one in api.task_instances(run))


def under_way(api: AirflowClient) -> int:
    """How many runs of any DAG have begun, or are about to, and have not ended."""
    path = "/dags/~/dagRuns"
    total: int = api.ask("GET", path, params={"state": ["queued", "running"], "limit": 1})["total_entries"]
    return total


@contextmanager
def closed_pool(api: AirflowClient) -> Iterator[Callable[[int], bool]]:
    """A pool without a slot, for as long as the block lasts.

    Yields:
        Tells whether so many tasks wait for it.
    """
    path = f"/pools/{POOL}"
    api.ask("DELETE", path, missing=True)
    api.ask("POST", "/pools", json={"name": POOL, "slots": 0, "description": "benches", "include_deferred": False})
    try:
        yield lambda tasks: api.ask("GET", path)["scheduled_slots"] >= tasks
    finally:
        api.ask("DELETE", path, missing=True)


def end(api: AirflowClient, run: Run) -> None:
    """Ends a run as if it had succeeded, with all that waits in it: a failure would be an alert."""
    api.ask("PATCH", run_path(run.dag_id, run.run_id), json={"state": "success"}, timeout=DELETE_SECONDS)
