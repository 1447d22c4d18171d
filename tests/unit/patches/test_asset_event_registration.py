"""Asset events are queued last in their transaction, and their queue rows stay until it commits.

The concurrency tests need PostgreSQL and two schedulers: tests/integration/test_scheduling_fairness.py.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.unit.patches.loading import applied


@pytest.fixture(scope="module")
def patch():
    """The patch, applied as in a component."""
    with applied("asset_event_registration") as module:
        yield module


class Transaction:
    """A session that records statements; `deleted` rows are gone when they are to be locked."""

    def __init__(self, *deleted: tuple[int, str], nested: bool = False) -> None:
        self.info: dict[str, set[tuple[int, str]]] = {}
        self.statements: list[str] = []
        self.inserted: list[list[tuple[int, str]]] = []
        self.deleted = deleted
        self.nested = nested

    def in_nested_transaction(self) -> bool:
        return self.nested

    def execute(self, statement):
        from sqlalchemy.dialects import postgresql

        self.statements.append(str(statement.compile(dialect=postgresql.dialect())))
        if not statement.is_insert:
            rows, self.deleted = set(self.inserted[-1]) - set(self.deleted) if self.inserted else set(), ()
            return SimpleNamespace(tuples=lambda: rows)
        values = [{column.name: value for column, value in row.items()} for row in statement._multi_values[0]]
        self.inserted.append([(row["asset_id"], row["target_dag_id"]) for row in values])
        return None

    def register(self, asset_id: int, *dag_ids: str) -> None:
        from airflow.assets.manager import AssetManager

        dags = [SimpleNamespace(dag_id=dag_id) for dag_id in dag_ids]
        AssetManager._queue_dagruns_nonpartitioned_postgres(asset_id, dags, self)


def test_events_are_queued_last_in_one_order(patch):
    transaction = Transaction()
    transaction.register(2, "b", "a")
    transaction.register(1, "b")
    assert transaction.statements == []
    patch.queue(transaction)
    assert transaction.inserted == [[(1, "b"), (2, "a"), (2, "b")]]
    assert "FOR KEY SHARE" in transaction.statements[-1]


def test_concurrently_deleted_row_is_queued_again(patch):
    transaction = Transaction((1, "b"))
    transaction.register(1, "a", "b")
    patch.queue(transaction)
    assert transaction.inserted == [[(1, "a"), (1, "b")], [(1, "b")]]


def test_lock_wait_of_a_task_is_limited(patch, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HA_COMPONENT", "execution-api")
    transaction = Transaction()
    transaction.register(1, "a")
    patch.queue(transaction)
    assert "set_config" in transaction.statements[0]


def test_rolled_back_transaction_queues_nothing(patch):
    transaction = Transaction()
    transaction.register(1, "a")
    patch.discard(transaction)
    patch.queue(transaction)
    assert transaction.statements == []


def test_savepoint_queues_nothing(patch):
    transaction = Transaction(nested=True)
    transaction.register(1, "a")
    patch.queue(transaction)
    assert transaction.statements == []


def test_upstream_queues_assets_not_events():
    """If this fails, the queue of Airflow (3.4) names each event: delete asset_event_registration.py."""
    from airflow.models.asset import AssetDagRunQueue

    assert "asset_event_id" not in AssetDagRunQueue.__table__.columns
