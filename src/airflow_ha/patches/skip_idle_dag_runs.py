"""A scheduler loads all tasks of a large DAG run only if a scheduling decision may be due.

Problem: in each loop a scheduler loads every task of every active run (sixty columns each) to find tasks to schedule
and finished runs. If all remaining tasks run or wait for a slot, that work has no result. With ten runs of a thousand
tasks a loop takes a second, and all other runs wait for it.
Patch: first find, in one query, the runs without a due decision, and leave them out of the loop. A decision is due if
a task is not scheduled yet or is up for retry, if no task is left, if the DAG has a newer version than the run's tasks,
or if `dagrun_timeout` has passed. All of this is in the database, so a restart changes nothing. Each scheduler still
loads every run once, and again every RECHECK_SECONDS, a few per loop.
Applies to: Airflow 3.3.2, `airflow.models.dagrun` and `airflow.jobs.scheduler_job_runner`. Schedulers.
Upstream issue: https://github.com/apache/airflow/issues/31185
Remove when: `test_upstream_loads_all_tasks_of_every_run` fails.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow._shared.timezones import timezone
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.ti_deps.dependencies_states import SCHEDULEABLE_STATES
from airflow.utils.session import NEW_SESSION
from airflow.utils.state import State
from cachetools import LRUCache
from sqlalchemy import func, or_, select
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from airflow.models.dagbag import DBDagBag
    from sqlalchemy.orm import Session

MIN_TASKS: Final = 20
"""Number of tasks: loading fewer is as fast as the query."""
RECHECK_SECONDS: Final = 300.0
MAX_RUNS: Final = 10_000
"""Size of the cache: more than schedulers have active."""
UNDECIDED: Final = frozenset(state for state in SCHEDULEABLE_STATES if state is not None)
"""States of a task that waits for a scheduling decision, as does a task without a state."""
DECIDED: Final = frozenset(state for state in State.unfinished if state is not None) - UNDECIDED
"""States of a task that runs, or waits for a slot, a trigger or a user."""


@dataclass(frozen=True)
class Examination:
    """The last time that all tasks of a run were loaded.

    Attributes:
        tasks: Number of tasks.
        at: Monotonic time.
    """

    tasks: int
    at: float


_examinations: LRUCache[int, Examination] = LRUCache(MAX_RUNS)
"""By the run's id."""

_decide: Any = DagRun.task_instance_scheduling_decisions
_schedule: Any = SchedulerJobRunner._schedule_all_dag_runs


def idle_runs(runs: Sequence[DagRun], session: Session) -> dict[int, UUID]:
    """Return the runs that have unfinished tasks but no due decision, with the newest version of their DAG.

    Args:
        runs: The runs to check.
        session: Database session.
    """
    tasks = select(TaskInstance.id).where(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id)
    left = tasks.where(TaskInstance.state.in_(DECIDED)).exists()
    undecided = tasks.where(or_(TaskInstance.state.is_(None), TaskInstance.state.in_(UNDECIDED))).exists()
    latest: Any = DagVersion._latest_version_select(DagRun.dag_id)
    newest = latest.with_only_columns(DagVersion.id).correlate(DagRun).scalar_subquery()
    # Upstream moves unfinished tasks to the newest version, unless the run is pinned to a bundle version.
    has_newest = tasks.where(TaskInstance.dag_version_id == newest).exists()
    up_to_date = or_(func.coalesce(DagRun.bundle_version, "") != "", has_newest)
    statement = select(DagRun.id, newest).where(DagRun.id.in_([run.id for run in runs]), left, ~undecided, up_to_date)
    return dict(session.execute(statement).tuples().all())


def has_timed_out(run: DagRun, newest: UUID, dags: DBDagBag, session: Session) -> bool:
    """Return whether a run's `dagrun_timeout` has passed or is unknown; upstream then reports the fault of its DAG.

    Args:
        run: The run.
        newest: The newest version of its DAG.
        dags: Cache of DAGs.
        session: Database session for DAGs that are not cached.
    """
    version = run.created_dag_version_id if run.bundle_version else None
    try:
        dag = dags.get_dag(version or newest, session)
    except DBAPIError:  # the transaction is rolled back and retried
        raise
    except Exception:
        return True
    if dag is None:
        return True
    limit = dag.dagrun_timeout
    return bool(run.start_date and limit and timezone.utcnow() - run.start_date > limit)


def rechecks_per_loop(runs: Sequence[DagRun]) -> int:
    """Return how many runs a loop must examine so that each is examined within RECHECK_SECONDS.

    With many active runs each loop handles different ones: the longer the runs waited, the more are examined per loop.
    """
    now = timezone.utcnow()
    waited = [(now - run.last_scheduling_decision).total_seconds() for run in runs if run.last_scheduling_decision]
    return math.ceil(math.fsum(waited) / RECHECK_SECONDS)


def runs_to_skip(runs: Sequence[DagRun], dags: DBDagBag, session: Session) -> list[DagRun]:
    """Return the runs to leave out: no decision is due, and no recheck.

    Args:
        runs: The runs of this loop.
        dags: Cache of DAGs.
        session: Database session.
    """
    candidates = {
        run.id: run
        for run in runs
        if run.last_scheduling_decision
        and ((examination := _examinations.get(run.id)) is None or examination.tasks >= MIN_TASKS)
    }
    if not candidates:
        return []
    examined_at: dict[int, float] = {}
    for run_id, newest in idle_runs(list(candidates.values()), session).items():
        if not has_timed_out(candidates[run_id], newest, dags, session):
            examined_at[run_id] = examination.at if (examination := _examinations.get(run_id)) else -math.inf
    overdue = [run_id for run_id, at in examined_at.items() if time.monotonic() - at > RECHECK_SECONDS]
    most = rechecks_per_loop([candidates[run_id] for run_id in examined_at])
    for run_id in sorted(overdue, key=examined_at.__getitem__)[:most]:
        del examined_at[run_id]
    return [run for run_id, run in candidates.items() if run_id in examined_at]


@functools.wraps(_decide)
def task_instance_scheduling_decisions(self: DagRun, *, session: Session = NEW_SESSION) -> Any:
    """Call the upstream method and record the number of tasks that it loaded."""
    decision = _decide(self, session=session)
    _examinations[self.id] = Examination(len(decision.tis), time.monotonic())
    return decision


@functools.wraps(_schedule)
def schedule_all_dag_runs(self: SchedulerJobRunner, guard: Any, dag_runs: Iterable[DagRun], session: Session) -> Any:
    """Call the upstream method without the runs that have no due decision."""
    runs = list(dag_runs)
    skipped = runs_to_skip(runs, self.scheduler_dag_bag, session)
    for run in skipped:
        run.last_scheduling_decision = timezone.utcnow()  # its turn passes to other runs
    return _schedule(self, guard, [run for run in runs if run not in skipped], session)


def apply() -> None:
    """Leave out runs without a due decision."""
    DagRun.task_instance_scheduling_decisions = task_instance_scheduling_decisions
    SchedulerJobRunner._schedule_all_dag_runs = schedule_all_dag_runs
