"""An asset event that is registered while a scheduler creates a run goes into the next run and is not lost.

Problem: an asset event is queued for its consumers with ON CONFLICT DO NOTHING. If a scheduler is about to delete the
queue row, or has locked the partition's row, it does not see the uncommitted event and deletes the row. No run then
consumes the event. Two tasks that update the same assets in different order also deadlock.
Patch: a transaction queues its events last, in one order, and holds a shared lock on each row until it commits.
Schedulers skip locked rows (SKIP LOCKED). A task waits at most 2 s for a scheduler, then retries. Events of partitions
are registered by one transaction at a time, with a lock on the partition's row.
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
"""By component: a frozen scheduler that holds a lock must not block the Execution API's threads; tasks retry."""
PENDING: Final = "airflow_ha_asset_queue"
"""Key in session.info: the (asset, DAG) pairs that the transaction queues before it commits."""

PARTITIONS: Final = 0x6169_7266_6C6F_7701
"""Advisory lock: one transaction at a time registers events of partitions, which prevents deadlocks."""

_get_or_create_apdr: Any = AssetManager._get_or_create_apdr


def set_lock_timeout(session: Session) -> None:
    """Limit the lock waits of a task's transaction, so that it fails and is retried."""
    if timeout := LOCK_TIMEOUT.get(os.environ.get("AIRFLOW_HA_COMPONENT", "")):
        session.execute(select(func.set_config("lock_timeout", timeout, True)))


def queue_later(_: type[AssetManager], asset_id: int, dags_to_queue: set[DagModel], session: Session) -> None:
    """Record the rows that the session queues when it commits."""
    session.info.setdefault(PENDING, set()).update((asset_id, dag.dag_id) for dag in dags_to_queue)


def queue(session: Session) -> None:
    """Insert the recorded rows, and hold a shared lock on them until the transaction ends."""
    if session.in_nested_transaction():
        return
    rows = sorted(session.info.pop(PENDING, ()))
    if not rows:
        return
    key = tuple_(AssetDagRunQueue.asset_id, AssetDagRunQueue.target_dag_id)
    queued = select(AssetDagRunQueue.asset_id, AssetDagRunQueue.target_dag_id)
    set_lock_timeout(session)
    while rows:  # repeat for rows that a scheduler deleted in between
        values = [{"asset_id": asset_id, "target_dag_id": dag_id} for asset_id, dag_id in rows]
        session.execute(insert(AssetDagRunQueue).values(values).on_conflict_do_nothing())
        locked = set(session.execute(queued.where(key.in_(rows)).with_for_update(read=True, key_share=True)).tuples())
        rows = [row for row in rows if row not in locked]


def discard(session: Session) -> None:
    """Drop the recorded rows of a transaction that is rolled back."""
    session.info.pop(PENDING, None)


def get_or_create_apdr(
    _: type[AssetManager], /, *, target_key: str, target_dag: DagModel, session: Session, **options: Any
) -> AssetPartitionDagRun:
    """Return the pending run of a partition, locked so that it stays pending until the transaction ends."""
    set_lock_timeout(session)
    session.execute(select(func.pg_advisory_xact_lock(PARTITIONS)))
    while True:
        apdr = _get_or_create_apdr(target_key=target_key, target_dag=target_dag, session=session, **options)
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
    event.listen(Session, "after_rollback", discard)
