"""Looks at Airflow: some fifteen requests, each bounded, whatever the number of runs.

Runs are counted by the database (`total_entries`), not read. Only those that failed are read, the latest first and a
thousand at most; what lies beyond is said in the log.
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

OWN_TAG = "monitoring"
"""DAGs with this tag are no part of any failure rate."""

DAG_PAGES = 20
FAILED_PAGES = 10
INSTANCE_PAGES = 5
OTHER_PAGES = 5
"""Pages of a hundred, at most."""

COUNTED_DAGS = 100
"""DAGs whose runs are counted one by one, those with the most failed runs: two requests each."""

HELD_BACK_ASKED = 50
"""DAGs at most that this is looked up for: one request each."""

EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Timeout|Exit|Interrupt)\b")
"""How the line of a traceback begins that has the exception; advice or notes may follow it."""

ALL_RUNS = "/dags/~/dagRuns"
ALL_INSTANCES = "/dags/~/dagRuns/~/taskInstances"


def observe(api: AirflowApi, thresholds: Thresholds, at: datetime) -> Observations:
    """Everything that the checks need.

    Raises:
        AirflowApiError: something could not be seen. Then nothing is: half a picture would resolve what still is wrong.
    """
    since = (at - timedelta(hours=thresholds.window_hours)).isoformat()
    cut: list[str] = []

    def entries(path: str, key: str, most: int, **params: Any) -> list[dict[str, Any]]:
        found, more = api.pages(path, key, most, **params)
        if more:
            cut.append(path)
        return found

    dags = {dag["dag_id"]: dag for dag in entries("/dags", "dags", DAG_PAGES, order_by="dag_id")}
    own = [dag_id for dag_id, dag in dags.items() if is_own(dag)]
    # An end date that is not there yet passes the API's filter: only with a state that has one is it right.
    failed = entries(ALL_RUNS, "dag_runs", FAILED_PAGES, state="failed", end_date_gte=since, order_by="-end_date")
    # One whose file is gone is not there any more.
    by_dag = Counter(run["dag_id"] for run in failed if run["dag_id"] in dags and run["dag_id"] not in own)
    runs = {dag_id: count_runs(api, dag_id, since) for dag_id, _ in by_dag.most_common(COUNTED_DAGS)}
    everything = count_runs(api, "~", since)
    of_own = [count_runs(api, dag_id, since) for dag_id in own]
    rest = Runs(
        success=everything.success - sum(each.success for each in of_own),
        failed=everything.failed - sum(each.failed for each in of_own),
    )
    # Before the pools: one that is created meanwhile is not taken for missing.
    scheduled = scheduled_tasks(scheduled_instances(api, cut), dags)
    succeeded = entries(
        "/dags", "dags", DAG_PAGES, order_by="dag_id", dag_run_state="success", dag_run_end_date_gte=since
    )
    instances = (
        entries(
            ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="failed", end_date_gte=since, order_by="-end_date"
        )
        if by_dag
        else []
    )
    return Observations(
        at=at,
        all_runs=rest,
        runs=runs,
        well=frozenset(dag["dag_id"] for dag in succeeded if dag["dag_id"] not in by_dag and not is_own(dag)),
        failing_tasks=failing_tasks(instance for instance in instances if instance["dag_id"] in by_dag),
        jobs=tuple(jobs(api.get("/jobs", order_by="-latest_heartbeat", limit=100)["jobs"])),
        pools=tuple(map(pool_of, entries("/pools", "pools", OTHER_PAGES, order_by="id"))),
        queued=queued_tasks(
            entries(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="queued", order_by="run_after")
        ),
        scheduled=scheduled,
        blocked_dags=frozenset(
            dag_id for dag_id, dag in dags.items() if not dag["is_paused"] and dag["max_active_tasks"] == 0
        ),
        running=Counter(
            instance["hostname"]
            for instance in entries(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="running", order_by="id")
            if instance["hostname"]
        ),
        due=tuple(due_dags(api, dags.values(), at)),
        import_problems=tuple(
            map(import_problem, entries("/importErrors", "import_errors", OTHER_PAGES, order_by="id"))
        ),
        cut=tuple(cut),
    )


def is_own(dag: dict[str, Any]) -> bool:
    """Whether it is one of the DAGs that watch."""
    return any(tag["name"] == OWN_TAG for tag in dag["tags"])


def moment(text: str) -> datetime:
    """A time as the API gives it."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def count_runs(api: AirflowApi, dag_id: str, since: str) -> Runs:
    """How many runs of a DAG, or with `~` of all, ended since then."""
    path = f"/dags/{quote(dag_id, safe='~')}/dagRuns"
    failed = api.get(path, state="failed", end_date_gte=since, order_by="-end_date", limit=1)
    return Runs(
        success=api.count(path, state="success", end_date_gte=since),
        failed=failed["total_entries"],
        latest_failed=failed["dag_runs"][0]["dag_run_id"] if failed["dag_runs"] else None,
    )


def failing_tasks(instances: Iterable[dict[str, Any]]) -> tuple[FailingTask, ...]:
    """Failed task instances, the latest first, grouped by DAG and task."""
    count: Counter[tuple[str, str]] = Counter()
    latest: dict[tuple[str, str], str] = {}
    for instance in instances:
        key = (instance["dag_id"], instance["task_id"])
        count[key] += 1
        latest.setdefault(key, instance["dag_run_id"])
    return tuple(FailingTask(*key, failed=number, latest_run=latest[key]) for key, number in count.most_common())


def jobs(answers: Iterable[dict[str, Any]]) -> Iterable[Job]:
    """The jobs of components."""
    for answer in answers:
        component = COMPONENTS.get(answer["job_type"] or "")
        if component and answer["start_date"] and answer["latest_heartbeat"]:
            yield Job(
                component=component,
                hostname=answer["hostname"] or "unknown",
                running=answer["state"] == "running",
                started=moment(answer["start_date"]),
                heartbeat=moment(answer["latest_heartbeat"]),
            )


def pool_of(answer: dict[str, Any]) -> Pool:
    """A pool."""
    return Pool(
        name=answer["name"], slots=answer["slots"], open=answer["open_slots"], scheduled=answer["scheduled_slots"]
    )


def queued_tasks(answers: Iterable[dict[str, Any]]) -> tuple[QueuedTask, ...]:
    """The queued task instances."""
    return tuple(
        QueuedTask(
            id=answer["id"],
            dag_id=answer["dag_id"],
            task_id=answer["task_id"],
            run_id=answer["dag_run_id"],
            queue=answer["queue"] or "default",
            queued=moment(answer["queued_when"]),
        )
        for answer in answers
        if answer["queued_when"]
    )


def scheduled_instances(api: AirflowApi, cut: list[str]) -> list[dict[str, Any]]:
    """Return the scheduled task instances: all, or the oldest and the newest runs' where they are too many.

    Those that can never run are the oldest in the end; the newest are read for a fault of today behind a long backlog.

    Args:
        api: Airflow.
        cut: takes the path when not all were read.
    """
    oldest, more = api.pages(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="scheduled", order_by="run_after")
    if not more:
        return oldest
    cut.append(ALL_INSTANCES)
    newest, _ = api.pages(ALL_INSTANCES, "task_instances", INSTANCE_PAGES, state="scheduled", order_by="-run_after")
    return list({instance["id"]: instance for instance in [*oldest, *newest]}.values())


def scheduled_tasks(answers: Iterable[dict[str, Any]], dags: Mapping[str, dict[str, Any]]) -> tuple[ScheduledTask, ...]:
    """Return the scheduled task instances of DAGs that are on; those of a paused DAG wait because they were told to."""
    return tuple(
        ScheduledTask(
            dag_id=answer["dag_id"],
            task_id=answer["task_id"],
            run_id=answer["dag_run_id"],
            pool=answer["pool"],
            pool_slots=answer["pool_slots"],
            scheduled=moment(answer["scheduled_when"]),
        )
        for answer in answers
        if answer["scheduled_when"] and answer["dag_id"] in dags and not dags[answer["dag_id"]]["is_paused"]
    )


def due_dags(api: AirflowApi, dags: Iterable[dict[str, Any]], at: datetime) -> Iterable[DueDag]:
    """The DAGs that are on, import, and have a schedule.

    A DAG with as many runs as it may have keeps its due time, which then passes: those are looked up.
    """
    asked = 0
    for dag in dags:
        if dag["is_paused"] or dag["has_import_errors"] or not dag["next_dagrun_run_after"]:
            continue
        due = moment(dag["next_dagrun_run_after"])
        held_back = False
        if dag["max_active_runs"] and (at - due).total_seconds() > DUE_GRACE and asked < HELD_BACK_ASKED:
            asked += 1
            path = f"/dags/{quote(dag['dag_id'], safe='')}/dagRuns"
            held_back = api.count(path, state=["queued", "running"]) >= dag["max_active_runs"]
        yield DueDag(dag["dag_id"], due, held_back)


def import_problem(answer: dict[str, Any]) -> ImportProblem:
    """A file that does not import."""
    lines = [line.rstrip() for line in (answer["stack_trace"] or "").splitlines() if line.strip()]
    # A time-out has four lines of advice after the exception.
    last = lines[-1].strip() if lines else "No reason is given."
    reason = next((line for line in reversed(lines) if EXCEPTION.match(line)), last)
    return ImportProblem(file=answer["filename"], error=reason[:500])
