"""A scheduler keeps its connection to the results of its tasks.

The fault, in celery 5.6.3's `celery.backends.database.session`: only a process that was forked from another keeps its
connections. A scheduler was not, and asks for results in every round of its loop: each time it builds an engine, and
has Postgres fork a process and check a password. A sixth of a scheduler's time under load (py-spy), and as much again
in Postgres. Others met it too: https://github.com/apache/airflow/pull/41870.

The work-round: a scheduler counts as forked. A connection that was lost is replaced by celery's own retry. It can go
when the test in `test_result_connection.py` that names upstream fails. Loaded by schedulers with Celery's settings
(airflow_ha/celery_config.py): a worker's own process must go on without, its children would inherit the connection.
"""

from __future__ import annotations

from typing import Any

from celery.backends.database.session import SessionManager

_get_engine: Any = SessionManager.get_engine


def get_engine(self: SessionManager, dburi: str, **options: Any) -> Any:
    """As upstream's in a forked process: the engine that was made for this database before."""
    self.forked = True
    return _get_engine(self, dburi, **options)


def apply() -> None:
    """Keep a scheduler's engine of the result backend."""
    SessionManager.get_engine = get_engine
