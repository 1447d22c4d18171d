"""Runs that wait take no scheduler's turn from runs that can go on.

Problem: a scheduler loop examines 20 running DAG runs and starts 20 queued ones. Backfill runs come after all others,
then the longest ago examined come first, changed or not. Beside 45 runs that wait for a sensor a backfill stands still;
beside 1,000, a run is examined every minute. Runs that an examination does not mark (a logical date in the future, an
error) stay first for ever. Queued runs above `max_active_runs` fill the 20 places of those that can start.
Patch: when more than 20 run, those with something to decide come first (new, a task ended or is due), then those of
which no task is in flight; 5 more, or what is left of the 20, go to the longest ago examined. Each examination is
marked. Only as many queued runs of a DAG or backfill are selected as may start.
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

LONGEST_AGO: Final = 5
"""Runs of each loop that are examined because it was the longest ago, however many have something to decide."""
RECENT: Final = timedelta(seconds=5)
"""A change may be committed so long after the time that is written with it."""
IN_FLIGHT: Final = frozenset(
    state
    for state in State.unfinished
    if state not in {None, TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE}
)
"""States in which a task waits for a slot, a trigger or users, or runs: no scheduling decision is due for it."""
CHANGED: Final = 0
"""Urgency of a run in which a task has ended, was cleared, or is due."""
STALLED: Final = 1
"""Of one with a task that waits for its retry, or with no task in flight: it may wait for another run."""
WAITING: Final = 2

_running: Any = DagRun.get_running_dag_runs_to_examine
_schedule_dag_run: Any = SchedulerJobRunner._schedule_dag_run


def urgency() -> ColumnElement[int]:
    """Return CHANGED, STALLED or WAITING for the DAG run of the enclosing query."""
    now = timezone.utcnow()
    state = TaskInstance.state
    pokes = select(func.max(TaskReschedule.reschedule_date)).where(TaskReschedule.ti_id == TaskInstance.id)
    changed = or_(TaskInstance.updated_at > DagRun.last_scheduling_decision, TaskInstance.updated_at > now - RECENT)
    of_task = case(
        (state.in_(IN_FLIGHT), WAITING),
        (and_(state == TaskInstanceState.UP_FOR_RESCHEDULE, pokes.scalar_subquery() > now), WAITING),
        (state == TaskInstanceState.UP_FOR_RESCHEDULE, CHANGED),
        (changed, CHANGED),
        (state == TaskInstanceState.UP_FOR_RETRY, STALLED),
    )
    of_tasks = (
        select(func.min(of_task))
        .where(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id)
        .correlate(DagRun)
        .scalar_subquery()
    )
    return case((DagRun.last_scheduling_decision.is_(None), literal(CHANGED)), else_=func.coalesce(of_tasks, STALLED))


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
    longest_ago = DagRun.last_scheduling_decision.asc()
    rank = urgency().label("rank")
    ranked = examinable(DagRun.id, rank).order_by(rank, longest_ago.nulls_first(), DagRun.run_after)
    # Twice as many, because another scheduler may have locked the first ones.
    urgent = [run_id for run_id, of_run in session.execute(ranked.limit(2 * limit)) if of_run < WAITING]
    runs = []
    if urgent:
        place = case({run_id: place for place, run_id in enumerate(urgent)}, value=DagRun.id)
        runs = lock(examinable(DagRun).where(DagRun.id.in_(urgent)).order_by(place), limit, session)
    others = examinable(DagRun).where(DagRun.id.not_in([run.id for run in runs])).order_by(longest_ago.nulls_last())
    return [*runs, *lock(others, max(limit - len(runs), LONGEST_AGO), session)]


def queued_dag_runs_to_set_running(cls: type[DagRun], session: Session) -> Sequence[DagRun]:
    """Return locked queued DAG runs, of each DAG and backfill no more than `max_active_runs` lets start."""
    under_way = (
        select(DagRun.dag_id, DagRun.backfill_id, func.count(DagRun.id).label("runs"))
        .where(DagRun.state == DagRunState.RUNNING)
        .group_by(DagRun.dag_id, DagRun.backfill_id)
        .subquery()
    )
    free = func.coalesce(Backfill.max_active_runs, DagModel.max_active_runs) - func.coalesce(under_way.c.runs, 0)
    order = (
        BackfillDagRun.sort_ordinal.asc().nulls_first(),
        DagRun.last_scheduling_decision.asc().nulls_first(),
        under_way.c.runs.asc().nulls_first(),
        DagRun.run_after,
    )
    of_backfill = and_(BackfillDagRun.dag_run_id == DagRun.id, BackfillDagRun.backfill_id == DagRun.backfill_id)
    of_same = and_(
        under_way.c.dag_id == DagRun.dag_id,
        func.coalesce(under_way.c.backfill_id, -1) == func.coalesce(DagRun.backfill_id, -1),
    )
    ranked = (
        select(
            DagRun.id,
            free.label("free"),
            func.row_number().over(partition_by=(DagRun.dag_id, DagRun.backfill_id), order_by=order).label("place"),
            func.row_number().over(order_by=order).label("turn"),
        )
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .outerjoin(BackfillDagRun, of_backfill)
        .outerjoin(Backfill, Backfill.id == BackfillDagRun.backfill_id)
        .outerjoin(under_way, of_same)
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
    """Schedule as upstream does, and mark the run as examined whatever comes of it."""
    before = dag_run.last_scheduling_decision
    try:
        callback = _schedule_dag_run(self, dag_run, session=session)
    except DBAPIError:  # the transaction is rolled back and tried again
        raise
    except Exception:
        dag_run.last_scheduling_decision = timezone.utcnow()
        raise
    if dag_run.last_scheduling_decision == before:
        dag_run.last_scheduling_decision = timezone.utcnow()
    return callback


def apply() -> None:
    """Examine runs with something to decide first."""
    model: Any = DagRun
    model.get_running_dag_runs_to_examine = classmethod(retry_db_transaction(running_dag_runs_to_examine))
    model.get_queued_dag_runs_to_set_running = classmethod(retry_db_transaction(queued_dag_runs_to_set_running))
    SchedulerJobRunner._schedule_dag_run = schedule_dag_run
