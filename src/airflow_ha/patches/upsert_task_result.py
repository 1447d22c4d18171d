"""A worker writes a task's result with one statement.

Problem: a result is looked for, a row without one is inserted, and then updated: four round trips to Postgres with the
row's number, and each row leaves a dead one behind.
Patch: one `INSERT … ON CONFLICT DO UPDATE` of what upstream would have written.
Measured on 2 cores, with skip_empty_param_schema: a no-op task costs a worker 0.100 CPU-seconds instead of 0.105.
Applies to: celery 5.6.3, `celery.backends.database`.
Upstream issue: none found.
Remove when: the test in `test_upsert_task_result.py` that names upstream fails.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.backends.database import DatabaseBackend, retry, session_cleanup
from sqlalchemy.dialects.postgresql import insert


def store_result(
    self: DatabaseBackend, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
) -> None:
    """As upstream's `_store_result`, which is tried again when the database was away.

    Args:
        self: where results are kept.
        task_id: the message's.
        result: what it returned, or raised.
        state: Celery's word for how it ended.
        traceback: of what it raised.
        request: the message.
    """
    table = self.task_cls.__table__
    row = SimpleNamespace()
    self._update_result(row, result, state, traceback=traceback, request=request)
    write = insert(table).values(task_id=task_id, **vars(row))
    session = self.ResultSession()
    with session_cleanup(session):
        session.execute(write.on_conflict_do_update(index_elements=[table.c.task_id], set_=vars(row)))
        session.commit()


def apply() -> None:
    """Write results with one statement."""
    backend: Any = DatabaseBackend
    backend._store_result = retry(store_result)
