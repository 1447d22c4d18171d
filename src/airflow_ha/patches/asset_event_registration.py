"""An asset event that is registered while a run takes the others is left for the next run, not lost.

Problem: an asset event is queued for its consumers with ON CONFLICT DO NOTHING. Where a scheduler is about to delete
the queue's row, or has locked the partition's, it does not see the event that is not committed yet, and deletes the
row under it: no run sees the event. Two tasks that update the same assets in another order deadlock, too.
Patch: a transaction queues its events last, in one order, and shares a lock on each row until it is committed; a
scheduler leaves locked rows alone (SKIP LOCKED). A task waits 2 s for a scheduler at most, then tries again.
Events of partitions are registered one transaction at a time, with a lock on the partition's row.
Applies to: Airflow 3.3.2, `airflow.assets.manager`, on PostgreSQL.
Upstream issue: https://github.com/apache/airflow/issues/54659, changed in 3.4 by pull request 70972; partitions 71070.
Remove when: the test that names upstream in `test_asset_event_registration.py` fails.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from airflow.assets.manager import AssetManager
from airflow.models.asset import AssetDagRunQueue, AssetPartitionDagRun
from sqlalchemy import event, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from airflow.models.dag import DagModel

LOCK_TIMEOUT: Final = {"execution-api": "2s"}
"""By component: a scheduler that is frozen with a lock must not hold the Execution API's threads; tasks try again."""
QUEUE: Final = "airflow_ha_asset_queue"
"""What a session's transaction has yet to queue: pairs of asset and DAG."""

PARTITIONS: Final = 0x6169_7266_6C6F_7701
"""The advisory lock of transactions that register events of partitions: one at a time, so that none deadlock."""

_get_or_create_apdr: Any = AssetManager._get_or_create_apdr


def bound_waits(session: Session) -> None:
    """Let the rest of a task's transaction fail, and be tried again, rather than wait long for a lock."""
    if timeout := LOCK_TIMEOUT.get(os.environ.get("AIRFLOW_HA_COMPONENT", "")):
        session.execute(select(func.set_config("lock_timeout", timeout, True)))


def queue_later(_: type[AssetManager], asset_id: int, dags_to_queue: set[DagModel], session: Session) -> None:
    """Note what is to be queued when the session is committed."""
    session.info.setdefault(QUEUE, set()).update((asset_id, dag.dag_id) for dag in dags_to_queue)


def queue(session: Session) -> None:
    """Queue what the session's transaction has noted, and share a lock on it until the transaction ends."""
    if session.in_nested_transaction():
        return
    rows = sorted(session.info.pop(QUEUE, ()))
    if not rows:
        return
    key = tuple_(AssetDagRunQueue.asset_id, AssetDagRunQueue.target_dag_id)
    queued = select(AssetDagRunQueue.asset_id, AssetDagRunQueue.target_dag_id)
    bound_waits(session)
    while rows:  # again for a row that a scheduler has deleted in between
        values = [{"asset_id": asset_id, "target_dag_id": dag_id} for asset_id, dag_id in rows]
        session.execute(insert(AssetDagRunQueue).values(values).on_conflict_do_nothing())
        locked = set(session.execute(queued.where(key.in_(rows)).with_for_update(read=True, key_share=True)).tuples())
        rows = [row for row in rows if row not in locked]


def forget(session: Session) -> None:
    """Drop what a rolled back transaction has noted."""
    session.info.pop(QUEUE, None)


def get_or_create_apdr(
    _: type[AssetManager], /, *, target_key: str, target_dag: DagModel, session: Session, **how: Any
) -> AssetPartitionDagRun:
    """Return the pending run of a partition, with a lock that keeps it pending until the transaction ends."""
    bound_waits(session)
    session.execute(select(func.pg_advisory_xact_lock(PARTITIONS)))
    while True:
        apdr = _get_or_create_apdr(target_key=target_key, target_dag=target_dag, session=session, **how)
        pending = session.scalar(
            select(AssetPartitionDagRun)
            .where(AssetPartitionDagRun.id == apdr.id)
            .with_for_update(read=True, key_share=True)
            .execution_options(populate_existing=True)
        )
        if pending is not None and pending.created_dag_run_id is None:
            return pending


def apply() -> None:
    """Queue a transaction's events last, with locks."""
    manager: Any = AssetManager
    manager._queue_dagruns_nonpartitioned_postgres = classmethod(queue_later)
    manager._get_or_create_apdr = classmethod(get_or_create_apdr)
    event.listen(Session, "before_commit", queue)
    event.listen(Session, "after_rollback", forget)
