"""Read Airflow's state in about fifteen requests, each bounded, independent of the number of runs.

The database counts the runs (`total_entries`). Only failed runs are read, the latest first and at most a thousand; a
truncated list is logged.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_ha.monitoring.checks import COMPONENTS
from airflow_ha.monitoring.observations import (
    DUE_GRACE,
    DueDag,
    FailingTask,
    ImportProblem,
    Job,
    Observations,
    Pool,
    QueuedTask,
    Runs,
    ScheduledTask,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_ha.monitoring.airflow_api import AirflowApi
    from airflow_ha.monitoring.thresholds import Thresholds

MONITORING_TAG = "monitoring"
"""Failure rates exclude DAGs with this tag."""

DAG_PAGES = 20
FAILED_PAGES = 10
INSTANCE_PAGES = 5
OTHER_PAGES = 5
"""The most pages of 100 entries."""

COUNTED_DAGS = 100
"""The most DAGs whose runs are counted individually, those with the most failed runs first: two requests each."""

MAX_HELD_BACK_CHECKS = 50
"""The most overdue DAGs whose active runs are counted: one request each."""

EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Timeout|Exit|Interrupt)\b")
"""The start of a traceback's line with the exception; advice or notes may follow this line."""

ALL_RUNS = "/dags/~/dagRuns"
ALL_INSTANCES = "/dags/~/dagRuns/~/taskInstances"


class Lists:
    """Reads lists of the API, and notes those that are too long.

    Attributes:
        truncated: the paths of lists that were not read completely.
    """

    def __init__(self, api: AirflowApi) -> None:
        self._api = api
        self.truncated: list[str] = []

    def read(self, path: str, key: str, most: int, **params: Any) -> list[dict[str, Any]]:
        """Return the entries of a list, from at most so many pages."""
        entries, more = self._api.pages(path, key, most, **params)
        if more:
            self.truncated.append(path)
        return entries

    def instances(self, state: str, order_by: str, **params: Any) -> list[dict[str, Any]]:
        """Return the task instances in a state."""
        return self.read(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state=state, order_by=order_by, **params)


def observe(api: AirflowApi, thresholds: Thresholds, at: datetime) -> Observations:
    """Return all observations that the checks need.

    Raises:
        AirflowApiError: a request failed. No observation is returned then: a missing one would resolve a live alert.
    """
    since = (at - timedelta(hours=thresholds.window_hours)).isoformat()
    lists = Lists(api)
    dags = {dag["dag_id"]: dag for dag in lists.read("/dags", "dags", DAG_PAGES, order_by="dag_id")}
    monitoring_dags = [dag_id for dag_id, dag in dags.items() if is_monitoring_dag(dag)]
    # The API's filter accepts a missing end date, so the filter needs a state that always has one.
    failed = lists.read(ALL_RUNS, "dag_runs", FAILED_PAGES, state="failed", end_date_gte=since, order_by="-end_date")
    # `dags` excludes DAGs whose file was removed.
    by_dag = Counter(run["dag_id"] for run in failed if run["dag_id"] in dags and run["dag_id"] not in monitoring_dags)
    runs = {dag_id: count_runs(api, dag_id, since) for dag_id, _ in by_dag.most_common(COUNTED_DAGS)}
    all_runs = counted_runs(api, monitoring_dags, since)
    # Read before the pools: otherwise a pool that is created in between would count as missing.
    scheduled = scheduled_tasks(scheduled_instances(api, lists.truncated), dags)
    succeeded = lists.read(
        "/dags", "dags", DAG_PAGES, order_by="dag_id", dag_run_state="success", dag_run_end_date_gte=since
    )
    failed_instances = lists.instances("failed", "-end_date", end_date_gte=since) if by_dag else []
    return Observations(
        at=at,
        all_runs=all_runs,
        runs=runs,
        healthy_dags=frozenset(
            dag["dag_id"] for dag in succeeded if dag["dag_id"] not in by_dag and not is_monitoring_dag(dag)
        ),
        failing_tasks=failing_tasks(instance for instance in failed_instances if instance["dag_id"] in by_dag),
        jobs=tuple(jobs(api.get("/jobs", order_by="-latest_heartbeat", limit=100)["jobs"])),
        pools=tuple(map(pool_of, lists.read("/pools", "pools", OTHER_PAGES, order_by="id"))),
        queued=queued_tasks(lists.instances("queued", "run_after")),
        scheduled=scheduled,
        blocked_dags=frozenset(
            dag_id for dag_id, dag in dags.items() if not dag["is_paused"] and dag["max_active_tasks"] == 0
        ),
        running=Counter(instance["hostname"] for instance in lists.instances("running", "id") if instance["hostname"]),
        due=tuple(due_dags(api, dags.values(), at)),
        import_problems=tuple(
            map(import_problem, lists.read("/importErrors", "import_errors", OTHER_PAGES, order_by="id"))
        ),
        truncated=tuple(lists.truncated),
    )


def counted_runs(api: AirflowApi, monitoring_dags: Iterable[str], since: str) -> Runs:
    """Return the number of ended runs of all DAGs except the monitoring DAGs."""
    total = count_runs(api, "~", since)
    excluded = [count_runs(api, dag_id, since) for dag_id in monitoring_dags]
    return Runs(
        success=total.success - sum(each.success for each in excluded),
        failed=total.failed - sum(each.failed for each in excluded),
    )


def is_monitoring_dag(dag: dict[str, Any]) -> bool:
    """Return whether a DAG has the monitoring tag."""
    return any(tag["name"] == MONITORING_TAG for tag in dag["tags"])


def parse_time(text: str) -> datetime:
    """Return a time of the API; without a time zone it is in UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def count_runs(api: AirflowApi, dag_id: str, since: str) -> Runs:
    """Return the number of runs of a DAG (of all DAGs for `~`) that have ended since then."""
    path = f"/dags/{quote(dag_id, safe='~')}/dagRuns"
    failed = api.get(path, state="failed", end_date_gte=since, order_by="-end_date", limit=1)
    return Runs(
        success=api.count(path, state="success", end_date_gte=since),
        failed=failed["total_entries"],
        latest_failed=failed["dag_runs"][0]["dag_run_id"] if failed["dag_runs"] else None,
    )


def failing_tasks(instances: Iterable[dict[str, Any]]) -> tuple[FailingTask, ...]:
    """Count failed task instances by DAG and task; the most failures first."""
    count = Counter((instance["dag_id"], instance["task_id"]) for instance in instances)
    return tuple(FailingTask(*key, failed=number) for key, number in count.most_common())


def jobs(entries: Iterable[dict[str, Any]]) -> Iterable[Job]:
    """Yield the jobs of the components in COMPONENTS."""
    for entry in entries:
        component = COMPONENTS.get(entry["job_type"] or "")
        if component and entry["start_date"] and entry["latest_heartbeat"]:
            yield Job(
                component=component,
                hostname=entry["hostname"] or "unknown",
                running=entry["state"] == "running",
                started=parse_time(entry["start_date"]),
                heartbeat=parse_time(entry["latest_heartbeat"]),
            )


def pool_of(entry: dict[str, Any]) -> Pool:
    """Convert a pool of the API."""
    return Pool(name=entry["name"], slots=entry["slots"], open=entry["open_slots"], scheduled=entry["scheduled_slots"])


def queued_tasks(entries: Iterable[dict[str, Any]]) -> tuple[QueuedTask, ...]:
    """Convert queued task instances; one that has just left the queue has no `queued_when`."""
    return tuple(
        QueuedTask(
            id=entry["id"],
            dag_id=entry["dag_id"],
            task_id=entry["task_id"],
            run_id=entry["dag_run_id"],
            queue=entry["queue"] or "default",
            queued=parse_time(entry["queued_when"]),
        )
        for entry in entries
        if entry["queued_when"]
    )


def scheduled_instances(api: AirflowApi, truncated: list[str]) -> list[dict[str, Any]]:
    """Return all scheduled task instances; if they are too many, those of the oldest and of the newest runs.

    Tasks that can never run become the oldest ones. The newest runs show a recent fault behind a long backlog.

    Args:
        api: the client.
        truncated: receives the path if not all were read.
    """
    oldest, more = api.pages(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="scheduled", order_by="run_after")
    if not more:
        return oldest
    truncated.append(ALL_INSTANCES)
    newest, _ = api.pages(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="scheduled", order_by="-run_after")
    return list({instance["id"]: instance for instance in [*oldest, *newest]}.values())


def scheduled_tasks(entries: Iterable[dict[str, Any]], dags: Mapping[str, dict[str, Any]]) -> tuple[ScheduledTask, ...]:
    """Convert scheduled task instances of unpaused DAGs; those of a paused DAG wait on purpose."""
    return tuple(
        ScheduledTask(
            dag_id=entry["dag_id"],
            task_id=entry["task_id"],
            run_id=entry["dag_run_id"],
            pool=entry["pool"],
            pool_slots=entry["pool_slots"],
            scheduled=parse_time(entry["scheduled_when"]),
        )
        for entry in entries
        if entry["scheduled_when"] and entry["dag_id"] in dags and not dags[entry["dag_id"]]["is_paused"]
    )


def due_dags(api: AirflowApi, dags: Iterable[dict[str, Any]], at: datetime) -> Iterable[DueDag]:
    """Yield the unpaused DAGs that import and have a schedule.

    A DAG that has reached `max_active_runs` keeps its due time, which then passes, so its active runs are counted.
    """
    counted = 0
    for dag in dags:
        if dag["is_paused"] or dag["has_import_errors"] or not dag["next_dagrun_run_after"]:
            continue
        due = parse_time(dag["next_dagrun_run_after"])
        held_back = False
        if dag["max_active_runs"] and (at - due).total_seconds() > DUE_GRACE and counted < MAX_HELD_BACK_CHECKS:
            counted += 1
            path = f"/dags/{quote(dag['dag_id'], safe='')}/dagRuns"
            held_back = api.count(path, state=["queued", "running"]) >= dag["max_active_runs"]
        yield DueDag(dag["dag_id"], due, held_back)


def import_problem(entry: dict[str, Any]) -> ImportProblem:
    """Convert an import error; its error is the line with the exception, or else the last line."""
    lines = [line.rstrip() for line in (entry["stack_trace"] or "").splitlines() if line.strip()]
    # After a timeout's exception four lines of advice follow.
    last = lines[-1].strip() if lines else "unknown"
    reason = next((line for line in reversed(lines) if EXCEPTION.match(line)), last)
    return ImportProblem(file=entry["filename"], error=reason[:500])
