"""Runs that wait hold up no others, and each asset event is in exactly one run of each of its consumers."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.stack import Airflow, Stack, wait_until

WAITING = 1000
MINUTE = 60
CONSUMERS = {
    "fairness_consumer": {"first"},
    "fairness_consumer_of_both": {"first", "second"},
    "fairness_consumer_of_either": {"first", "second"},
    "fairness_consumer_or_yearly": {"second"},
}
"""The assets that each takes."""

COPY = """
import sys
from datetime import timedelta
from uuid import uuid4
from airflow._shared.timezones import timezone
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select

dag_id, copied, number, state, pool = sys.argv[1:]
runs, tasks, pokes = DagRun.__table__, TaskInstance.__table__, TaskReschedule.__table__
now = timezone.utcnow()
with create_session() as session:
    session.execute(delete(runs).where(runs.c.dag_id == dag_id, runs.c.run_id.like("copy_%")))
    run = dict(session.execute(select(runs).where(runs.c.run_id == copied)).mappings().one())
    of_run = tasks.c.dag_id == dag_id, tasks.c.run_id == copied
    its_tasks = session.execute(select(tasks).where(*of_run)).mappings().all()
    del run["id"]
    names = [f"copy_{n}" for n in range(int(number))]
    if names:
        session.execute(insert(runs), [{**run, "run_id": name, "state": "running"} for name in names])
        new = [{**task, "id": uuid4(), "run_id": name} for name in names for task in its_tasks]
        for task in new:
            if task["task_id"] == "wait":
                task.update(state=state, pool=pool, end_date=now)
        session.execute(insert(tasks), new)
        later = dict(start_date=now, end_date=now, duration=0, reschedule_date=now + timedelta(minutes=30))
        waiting = [task["id"] for task in new if task["task_id"] == "wait"]
        session.execute(insert(pokes), [{**later, "ti_id": task} for task in waiting])
"""

LATE = """
import sys, time
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetModel
from airflow.utils.session import create_session
from sqlalchemy import select

with create_session() as session:
    asset = session.scalar(select(AssetModel).where(AssetModel.uri == sys.argv[1]))
    asset_manager.register_asset_change(asset=asset, extra={"late": True}, session=session)
    print("registered", flush=True)
    sys.stdin.readline()
"""
"""Registers an event, and commits it on request."""


@pytest.fixture
def api(healthy_stack: Stack) -> Airflow:
    return healthy_stack.api


def in_api_server(stack: Stack, code: str, *arguments: str) -> list[str]:
    """Return the command that runs Python in an API server."""
    container, *_ = stack.containers("api-server")
    return ["docker", "exec", "--interactive", container.id, "python", "-c", code, *arguments]


@contextmanager
def waiting_runs(stack: Stack, number: int, *, state: str = "deferred", pool: str = "default_pool") -> Iterator[None]:
    """Keep this number of runs waiting in a state of their first task, for the duration of the block."""
    api = stack.api
    run = api.trigger("fairness_waiting")
    waits = "up_for_reschedule"
    wait_until(lambda: api.in_state("fairness_waiting", run, "wait", waits), timeout=60, what="the sensor waits")

    def copies(number: int) -> None:
        command = in_api_server(stack, COPY, "fairness_waiting", run, str(number), state, pool)
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    copies(number)
    try:
        yield
    finally:
        copies(0)
        api.http.delete(f"/api/v2/dags/fairness_waiting/dagRuns/{run}")


def backfill(api: Airflow, first: str, last: str, dag_id: str = "fairness_backfilled", **how: Any) -> int:
    """Start a backfill of days, and return its id."""
    wait_until(lambda: api.has_dag(dag_id), timeout=60, what="the DAG is there")
    body = {"dag_id": dag_id, "reprocess_behavior": "completed", **how}
    days = {"from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}

    def created() -> httpx.Response | None:
        # Airflow allows one of a DAG at a time, and marks the last as completed some seconds after its last run.
        answer = api.http.post("/api/v2/backfills", json={**body, **days})
        return None if answer.status_code == httpx.codes.CONFLICT else answer

    answer = wait_until(created, timeout=60, what="no other backfill of the DAG is under way")
    assert answer.is_success, answer.text
    return int(answer.json()["id"])


def backfilled(api: Airflow, first: str, last: str, dag_id: str = "fairness_backfilled") -> list[dict[str, Any]]:
    """Return the backfill runs of days, newest first."""
    runs = api.get(f"/dags/{dag_id}/dagRuns", run_type="backfill", limit=100)["dag_runs"]
    days = [run for run in runs if first <= run["logical_date"][:10] <= last]
    return sorted(days, key=lambda run: str(run["logical_date"]), reverse=True)


def at_once(runs: list[dict[str, Any]]) -> int:
    """Return how many of the runs ran at the same time."""
    changes = [(datetime.fromisoformat(run["start_date"]), 1) for run in runs]
    changes += [(datetime.fromisoformat(run["end_date"]), -1) for run in runs]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def waits_for_schedulers(api: Airflow, dag_id: str, run: dict[str, Any]) -> list[float]:
    """Return the two delays by schedulers, in seconds: run start to task scheduled, and task end to run end."""
    (task,) = api.task_instances(dag_id, run["dag_run_id"])
    times = [run["start_date"], task["scheduled_when"], task["end_date"], run["end_date"]]
    start, scheduled, ended, end = (datetime.fromisoformat(time).timestamp() for time in times)
    return [scheduled - start, end - ended]


def go_on_within_a_minute(stack: Stack, month: str) -> None:
    """Check that a reverse backfill of six days and a manual run succeed, and that no step waits for a minute."""
    api = stack.api
    first, last = f"2026-{month}-01", f"2026-{month}-06"
    backfill(api, first, last, run_backwards=True, max_active_runs=2)
    triggered = api.trigger("fairness_triggered")

    def done() -> bool:
        runs = backfilled(api, first, last)
        ended = len(runs) == 6 and all(run["state"] == "success" for run in runs)
        return ended and api.run_state("fairness_triggered", triggered) == "success"

    wait_until(done, timeout=3 * MINUTE, what="the backfill and the manual run have succeeded")
    runs = backfilled(api, first, last)
    began = [run["start_date"] for run in runs]
    assert began == sorted(began)
    assert at_once(runs) <= 2
    assert max(wait for run in runs for wait in waits_for_schedulers(api, "fairness_backfilled", run)) < MINUTE


def test_backfill_beside_1000_waiting_runs_goes_on(healthy_stack: Stack):
    with waiting_runs(healthy_stack, WAITING):
        go_on_within_a_minute(healthy_stack, "02")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("month", "state", "pool"),
    [
        ("03", "up_for_reschedule", "default_pool"),
        ("04", "up_for_retry", "default_pool"),
        ("05", "scheduled", "tests_no_slots"),
    ],
)
def test_runs_that_wait_in_any_state_starve_none(healthy_stack: Stack, month: str, state: str, pool: str):
    healthy_stack.api.http.post("/api/v2/pools", json={"name": "tests_no_slots", "slots": 0, "include_deferred": False})
    with waiting_runs(healthy_stack, WAITING, state=state, pool=pool):
        go_on_within_a_minute(healthy_stack, month)


@pytest.mark.nightly
def test_two_backfills_both_go_on(healthy_stack: Stack, api: Airflow):
    with waiting_runs(healthy_stack, WAITING):
        backfills = [
            ("2026-06-01", "2026-06-05", "fairness_backfilled"),
            ("2026-07-01", "2026-07-05", "fairness_backfilled_too"),
        ]
        for days in backfills:
            backfill(api, *days, max_active_runs=1)

        def done() -> bool:
            runs = [run for days in backfills for run in backfilled(api, *days)]
            return len(runs) == 10 and all(run["state"] == "success" for run in runs)

        wait_until(done, timeout=3 * MINUTE, what="both backfills have succeeded")


def events_since(api: Airflow, asset: str, since: str) -> list[dict[str, Any]]:
    """Return the events of an asset since a moment."""
    (record,) = api.get("/assets", uri_pattern=f"tests://fairness/{asset}")["assets"]
    events: list[dict[str, Any]] = []
    while True:
        how = {"asset_id": record["id"], "timestamp_gte": since, "limit": 100, "offset": len(events)}
        page = api.get("/assets/events", order_by="timestamp", **how)
        events += page["asset_events"]
        if len(events) >= page["total_entries"]:
            return events


def runs_of_events(api: Airflow, since: str) -> dict[tuple[str, int], int]:
    """Return how many runs have taken an event since a moment, by consumer and event."""
    taken: Counter[tuple[str, int]] = Counter()
    for asset in ("first", "second"):
        for event in events_since(api, asset, since):
            runs = Counter(run["dag_id"] for run in event["created_dagruns"])
            for consumer in (name for name, assets in CONSUMERS.items() if asset in assets):
                taken[consumer, event["id"]] = runs[consumer]
    return dict(taken)


def produce(api: Airflow, *, runs: int) -> str:
    """Let runs update both assets in thirty tasks each, and return the time before."""
    for consumer in CONSUMERS:
        wait_until(lambda consumer=consumer: api.has_dag(consumer), timeout=60, what=f"{consumer} is there")
    since = datetime.now(UTC).isoformat()
    for run in [api.trigger("fairness_producer") for _ in range(runs)]:
        assert api.wait_for_run("fairness_producer", run, timeout=2 * MINUTE) == "success"
    return since


def each_in_one_run(api: Airflow, since: str, *, events: int) -> None:
    """Check that each event of both assets is in exactly one run of each consumer."""

    def taken() -> bool:
        counts = runs_of_events(api, since).values()
        return len(counts) >= 3 * events and 0 not in counts

    wait_until(taken, timeout=MINUTE, what=f"each of {events} asset events has a run of each consumer")
    counts = runs_of_events(api, since)
    assert {key: runs for key, runs in counts.items() if runs != 1} == {}


def test_asset_events_are_each_in_one_run(api: Airflow):
    since = produce(api, runs=2)
    each_in_one_run(api, since, events=120)


def update_asset(api: Airflow, asset: str) -> None:
    """Register an event of an asset, as a user."""
    (record,) = api.get("/assets", uri_pattern=f"tests://fairness/{asset}")["assets"]
    api.http.post("/api/v2/assets/events", json={"asset_id": record["id"]}).raise_for_status()


def runs_of(api: Airflow, consumer: str, since: str) -> list[int]:
    """Return how many runs of a consumer have taken each event of its assets since a moment."""
    return [runs for (name, _), runs in sorted(runs_of_events(api, since).items()) if name == consumer]


def test_asset_event_committed_late_is_in_the_next_run(healthy_stack: Stack, api: Airflow):
    since, consumer = produce(api, runs=0), "fairness_consumer_of_both"
    update_asset(api, "first")
    command = in_api_server(healthy_stack, LATE, "tests://fairness/first")
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as late:
        assert late.stdout
        assert late.stdin
        assert "registered\n" in iter(late.stdout.readline, "")
        update_asset(api, "second")
        wait_until(lambda: runs_of(api, consumer, since) == [1, 1], timeout=MINUTE, what="a run has taken two events")
        late.stdin.write("commit\n")
        late.stdin.flush()
    update_asset(api, "second")
    wait_until(lambda: runs_of(api, consumer, since) == [1] * 4, timeout=MINUTE, what="each of 4 events is in one run")


@pytest.mark.nightly
@pytest.mark.parametrize("storm", range(20))
def test_no_asset_event_is_lost_in_20_storms(healthy_stack: Stack, api: Airflow, storm: int):
    if storm % 4 == 3:
        scheduler = healthy_stack.containers("scheduler")[storm // 4 % 2]
        since = produce(api, runs=1)
        scheduler.crash()
        for run in [api.trigger("fairness_producer") for _ in range(3)]:
            assert api.wait_for_run("fairness_producer", run, timeout=3 * MINUTE) == "success"
    else:
        since = produce(api, runs=4)
    each_in_one_run(api, since, events=240)


def test_events_of_a_paused_consumer_are_in_its_next_run(api: Airflow):
    since, consumer = produce(api, runs=0), "fairness_consumer_or_yearly"
    api.http.patch(f"/api/v2/dags/{consumer}", json={"is_paused": True}).raise_for_status()
    try:
        update_asset(api, "second")
        update_asset(api, "second")
    finally:
        api.http.patch(f"/api/v2/dags/{consumer}", json={"is_paused": False}).raise_for_status()
    update_asset(api, "second")
    wait_until(lambda: runs_of(api, consumer, since) == [1, 1, 1], timeout=MINUTE, what="each event is in one run")
    update_asset(api, "first")  # so that nothing is left in the queue of the consumer of both
    both = "fairness_consumer_of_both"
    wait_until(lambda: runs_of(api, both, since) == [1] * 4, timeout=MINUTE, what="each event is in one run of both")
