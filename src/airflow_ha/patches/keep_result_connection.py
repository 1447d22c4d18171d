"""A scheduler keeps its connection to the results of its tasks.

Problem: only a process that was forked from another keeps its connections to Celery's results. A scheduler was not, and
asks for results in every loop: each time it builds an engine, and has Postgres fork a process and check a password. A
sixth of a scheduler's time under load (py-spy), and as much again in Postgres.
Patch: a scheduler counts as forked. A connection that was lost is replaced by Celery's own retry.
Applies to: celery 5.6.3, `celery.backends.database.session`. Schedulers only: a worker's children would inherit it.
Upstream issue: https://github.com/apache/airflow/pull/41870
Remove when: `test_upstream_connects_for_each_question` fails.
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
