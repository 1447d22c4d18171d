"""Each asset event is consumed by exactly one run of each consumer.

Problem: a run takes the events between the last run's time and the time of the first event queued since. Later events
that were queued with it get no run until another event arrives. An event that is committed late, or by a host whose
clock is behind, never gets one. A consumer of A and B runs on A alone if another scheduler took B in between.
Patch: a run takes all committed events of its assets that no run of the DAG has taken, except those whose queue row is
locked by a registration (asset_event_registration.py). The condition is evaluated on the rows that the scheduler
locked. As upstream, events of a paused DAG start no run; its next run takes them.
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`.
Upstream issue: https://github.com/apache/airflow/issues/54659 and 56050, changed in 3.4 by pull request 70972.
Remove when: the test that names upstream in `test_asset_triggered_runs.py` fails.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow._shared.observability.metrics import stats
from airflow.assets.evaluation import AssetEvaluator
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.asset import (
    AssetAliasModel,
    AssetDagRunQueue,
    AssetEvent,
    AssetModel,
    DagScheduleAssetAliasReference,
    DagScheduleAssetReference,
    association_table,
)
from airflow.models.dagrun import DagRun
from airflow.serialization.definitions.assets import SerializedAssetUniqueKey
from airflow.timetables.simple import AssetTriggeredTimetable
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import ColumnElement, delete, func, or_, select

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from airflow.models.dag import DagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

MAX_COMMIT_DELAY: Final = timedelta(minutes=10)
"""Longest delay between an event's timestamp and its commit, including clock skew; limits the rows that are read."""

_create: Any = SchedulerJobRunner._create_dag_runs_asset_triggered


def earliest_timestamp(dag: SerializedDAG, session: Session) -> datetime | None:
    """Return the time after which events count: the last run's, or when the DAG became a consumer."""
    last = session.scalar(
        select(func.max(DagRun.run_after)).where(
            DagRun.dag_id == dag.dag_id, DagRun.run_type == DagRunType.ASSET_TRIGGERED
        )
    )
    since = None
    if not dag.catchup:
        reference = DagScheduleAssetReference
        since = session.scalar(select(func.min(reference.created_at)).where(reference.dag_id == dag.dag_id))
    return max((time for time in (last and last - MAX_COMMIT_DELAY, since) if time), default=None)


def unconsumed_events(dag: SerializedDAG, locked: Collection[int], session: Session) -> Sequence[AssetEvent]:
    """Return the events that the next run of a DAG takes, oldest first.

    Args:
        dag: The consumer.
        locked: Assets whose queue rows this scheduler has locked; rows locked by others are skipped.
        session: The scheduler's session.
    """
    scheduled = select(DagScheduleAssetReference.asset_id).where(DagScheduleAssetReference.dag_id == dag.dag_id)
    by_alias = AssetAliasModel.scheduled_dags.any(DagScheduleAssetAliasReference.dag_id == dag.dag_id)
    locked_by_others = select(AssetDagRunQueue.asset_id).where(
        AssetDagRunQueue.target_dag_id == dag.dag_id, AssetDagRunQueue.asset_id.not_in(locked)
    )
    consumed = (
        select(association_table.c.event_id)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .where(association_table.c.event_id == AssetEvent.id, DagRun.dag_id == dag.dag_id)
    )
    conditions: list[ColumnElement[bool]] = [
        or_(
            AssetEvent.asset_id.in_(locked),
            AssetEvent.asset_id.in_(scheduled),
            AssetEvent.source_aliases.any(by_alias),
        ),
        AssetEvent.asset_id.not_in(locked_by_others),
        ~consumed.exists(),
    ]
    if since := earliest_timestamp(dag, session):
        conditions.append(AssetEvent.timestamp > since)
    return session.scalars(select(AssetEvent).where(*conditions).order_by(AssetEvent.timestamp, AssetEvent.id)).all()


def create_dag_run(runner: SchedulerJobRunner, dag: SerializedDAG, session: Session) -> None:
    """Create the next run of a consumer if the queue rows that this scheduler can lock meet its condition."""
    queued = select(AssetDagRunQueue.asset_id, AssetDagRunQueue.created_at, AssetModel.name, AssetModel.uri).join(
        AssetModel, AssetModel.id == AssetDagRunQueue.asset_id
    )
    rows = session.execute(
        with_row_locks(
            queued.where(AssetDagRunQueue.target_dag_id == dag.dag_id),
            of=AssetDagRunQueue,
            skip_locked=True,
            key_share=False,
            session=session,
        )
    ).all()
    statuses = {SerializedAssetUniqueKey(name=row.name, uri=row.uri): True for row in rows}
    if not rows or not AssetEvaluator(session).run(dag.timetable.asset_condition, statuses=statuses):
        runner.log.debug("Not creating a run of '%s': its queue rows are locked or consumed.", dag.dag_id)
        return
    assets = [row.asset_id for row in rows]
    events = unconsumed_events(dag, assets, session)
    session.execute(
        delete(AssetDagRunQueue).where(
            AssetDagRunQueue.target_dag_id == dag.dag_id, AssetDagRunQueue.asset_id.in_(assets)
        )
    )
    if not events:
        runner.log.info("Not creating a run of '%s': its queued asset events are already consumed.", dag.dag_id)
        return
    run_after = max(events[-1].timestamp, *(row.created_at for row in rows))
    run = dag.create_dagrun(
        run_id=DagRun.generate_run_id(run_type=DagRunType.ASSET_TRIGGERED, logical_date=None, run_after=run_after),
        logical_date=None,
        data_interval=None,
        run_after=run_after,
        run_type=DagRunType.ASSET_TRIGGERED,
        triggered_by=DagRunTriggeredByType.ASSET,
        state=DagRunState.QUEUED,
        creating_job_id=runner.job.id,
        session=session,
    )
    run.consumed_asset_events.extend(events)
    stats.incr("asset.triggered_dagruns")
    runner.log.info("Created run '%s' of '%s' for %d asset events.", run.run_id, dag.dag_id, len(events))


def create_dag_runs(self: SchedulerJobRunner, *, dag_models: Collection[DagModel], session: Session) -> None:
    """Create the next run of each asset-triggered DAG."""
    for model in dag_models:
        dag = self._get_current_dag(dag_id=model.dag_id, session=session)
        if dag and isinstance(dag.timetable, AssetTriggeredTimetable):
            create_dag_run(self, dag, session)
        else:
            self.log.error("Dag '%s' has no serialized version that is triggered by assets.", model.dag_id)


def apply() -> None:
    """Give each asset event to one run of each consumer."""
    runner: Any = SchedulerJobRunner
    runner._create_dag_runs_asset_triggered = create_dag_runs
