"""DAG runs that only wait do not delay DAG runs that can progress.

Problem: a scheduler loop examines 20 running DAG runs and starts 20 queued ones. It orders them by the time of the last
examination, backfill runs last. With 45 runs that wait for a sensor, a backfill makes no progress; with 1,000, each run
is examined once a minute. Runs whose examination is not recorded (future logical date, error) stay first forever.
Queued runs above `max_active_runs` occupy the 20 places of startable runs.
Patch: with more than 20 running runs, examine first those with a due decision (new run, finished or due task), then
those without a task in flight. 5 places, or what is left of the 20, go to the least recently examined. Record each
examination. Select only as many queued runs of a DAG or backfill as may start.
Applies to: Airflow 3.3.2, `airflow.models.dagrun.DagRun`, `airflow.jobs.scheduler_job_runner`.
Upstream issue: https://github.com/apache/airflow/pull/72730 (merged for 3.4: backfill runs only).
Remove when: the test that names upstream in `test_dag_run_examination_order.py` fails.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow._shared.timezones import timezone
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.backfill import Backfill, BackfillDagRun
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.retries import retry_db_transaction
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import DagRunState, State, TaskInstanceState
from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

LEAST_RECENT: Final = 5
"""Least recently examined runs in each loop, however many others have a due decision."""
MAX_COMMIT_DELAY: Final = timedelta(seconds=5)
"""Longest delay between a change's timestamp and its commit."""
IN_FLIGHT: Final = frozenset(
    state
    for state in State.unfinished
    if state not in {None, TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE}
)
"""States of a task that runs, or waits for a slot, a trigger or a user: no scheduling decision is due."""
CHANGED: Final = 0
"""Urgency of a run with a task that finished, was cleared or is due."""
STALLED: Final = 1
"""Urgency of a run with a task up for retry, or with no task in flight: it may depend on another run."""
WAITING: Final = 2

_running: Any = DagRun.get_running_dag_runs_to_examine
_schedule_dag_run: Any = SchedulerJobRunner._schedule_dag_run


def urgency() -> ColumnElement[int]:
    """Return the SQL for CHANGED, STALLED or WAITING of the DAG run in the enclosing query."""
    now = timezone.utcnow()
    state = TaskInstance.state
    pokes = select(func.max(TaskReschedule.reschedule_date)).where(TaskReschedule.ti_id == TaskInstance.id)
    changed = or_(
        TaskInstance.updated_at > DagRun.last_scheduling_decision, TaskInstance.updated_at > now - MAX_COMMIT_DELAY
    )
    task_urgency = case(
        (state.in_(IN_FLIGHT), WAITING),
        (and_(state == TaskInstanceState.UP_FOR_RESCHEDULE, pokes.scalar_subquery() > now), WAITING),
        (state == TaskInstanceState.UP_FOR_RESCHEDULE, CHANGED),
        (changed, CHANGED),
        (state == TaskInstanceState.UP_FOR_RETRY, STALLED),
    )
    run_urgency = (
        select(func.min(task_urgency))
        .where(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id)
        .correlate(DagRun)
        .scalar_subquery()
    )
    return case(
        (DagRun.last_scheduling_decision.is_(None), literal(CHANGED)), else_=func.coalesce(run_urgency, STALLED)
    )


def examinable(*columns: Any) -> Select[Any]:
    """Select columns of the running DAG runs that a scheduler may examine."""
    return (
        select(*columns)
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .where(
            DagRun.state == DagRunState.RUNNING,
            DagRun.run_after <= func.now(),
            DagModel.is_paused.is_(False),
            DagModel.is_stale.is_(False),
        )
    )


def lock(query: Select[Any], limit: int, session: Session) -> list[DagRun]:
    """Return the first runs of a query that no other scheduler has locked."""
    locked = with_row_locks(query.limit(limit), of=DagRun, session=session, skip_locked=True)
    return list(session.scalars(locked).unique())


def running_dag_runs_to_examine(cls: type[DagRun], session: Session) -> Sequence[DagRun]:
    """Return locked running DAG runs, the most urgent first."""
    limit = cls.DEFAULT_DAGRUNS_TO_EXAMINE
    if len(session.scalars(examinable(DagRun.id).limit(limit + 1)).all()) <= limit:
        return list(_running(session=session))
    least_recent = DagRun.last_scheduling_decision.asc()
    rank = urgency().label("rank")
    ranked = examinable(DagRun.id, rank).order_by(rank, least_recent.nulls_first(), DagRun.run_after)
    # Select twice the limit, because another scheduler may have locked the first runs.
    urgent = [run_id for run_id, run_rank in session.execute(ranked.limit(2 * limit)) if run_rank < WAITING]
    runs = []
    if urgent:
        place = case({run_id: place for place, run_id in enumerate(urgent)}, value=DagRun.id)
        runs = lock(examinable(DagRun).where(DagRun.id.in_(urgent)).order_by(place), limit, session)
    others = examinable(DagRun).where(DagRun.id.not_in([run.id for run in runs])).order_by(least_recent.nulls_last())
    return [*runs, *lock(others, max(limit - len(runs), LEAST_RECENT), session)]


def queued_dag_runs_to_set_running(cls: type[DagRun], session: Session) -> Sequence[DagRun]:
    """Return locked queued DAG runs: per DAG and backfill at most as many as `max_active_runs` allows."""
    active = (
        select(DagRun.dag_id, DagRun.backfill_id, func.count(DagRun.id).label("runs"))
        .where(DagRun.state == DagRunState.RUNNING)
        .group_by(DagRun.dag_id, DagRun.backfill_id)
        .subquery()
    )
    free = func.coalesce(Backfill.max_active_runs, DagModel.max_active_runs) - func.coalesce(active.c.runs, 0)
    order = (
        BackfillDagRun.sort_ordinal.asc().nulls_first(),
        DagRun.last_scheduling_decision.asc().nulls_first(),
        active.c.runs.asc().nulls_first(),
        DagRun.run_after,
    )
    backfill_run = and_(BackfillDagRun.dag_run_id == DagRun.id, BackfillDagRun.backfill_id == DagRun.backfill_id)
    same_group = and_(
        active.c.dag_id == DagRun.dag_id,
        func.coalesce(active.c.backfill_id, -1) == func.coalesce(DagRun.backfill_id, -1),
    )
    ranked = (
        select(
            DagRun.id,
            free.label("free"),
            func.row_number().over(partition_by=(DagRun.dag_id, DagRun.backfill_id), order_by=order).label("place"),
            func.row_number().over(order_by=order).label("turn"),
        )
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .outerjoin(BackfillDagRun, backfill_run)
        .outerjoin(Backfill, Backfill.id == BackfillDagRun.backfill_id)
        .outerjoin(active, same_group)
        .where(
            DagRun.state == DagRunState.QUEUED,
            DagRun.run_after <= func.now(),
            DagModel.is_paused.is_(False),
            DagModel.is_stale.is_(False),
            func.coalesce(Backfill.is_paused, False).is_(False),
        )
        .subquery()
    )
    startable = (
        select(DagRun)
        .join(ranked, ranked.c.id == DagRun.id)
        .where(DagRun.state == DagRunState.QUEUED, ranked.c.place <= ranked.c.free)
        .order_by(ranked.c.turn)
    )
    return lock(startable, cls.DEFAULT_DAGRUNS_TO_EXAMINE, session)


@functools.wraps(_schedule_dag_run)
def schedule_dag_run(self: SchedulerJobRunner, dag_run: DagRun, session: Session) -> Any:
    """Call the upstream method; record the examination even if it fails or changes nothing."""
    before = dag_run.last_scheduling_decision
    try:
        callback = _schedule_dag_run(self, dag_run, session=session)
    except DBAPIError:  # the transaction is rolled back and retried
        raise
    except Exception:
        dag_run.last_scheduling_decision = timezone.utcnow()
        raise
    if dag_run.last_scheduling_decision == before:
        dag_run.last_scheduling_decision = timezone.utcnow()
    return callback


def apply() -> None:
    """Examine DAG runs with a due decision first."""
    model: Any = DagRun
    model.get_running_dag_runs_to_examine = classmethod(retry_db_transaction(running_dag_runs_to_examine))
    model.get_queued_dag_runs_to_set_running = classmethod(retry_db_transaction(queued_dag_runs_to_set_running))
    SchedulerJobRunner._schedule_dag_run = schedule_dag_run
