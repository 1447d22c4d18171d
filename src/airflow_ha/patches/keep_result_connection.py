"""A scheduler keeps its connection to Celery's result backend.

Problem: Celery reuses its result connections only in forked processes. A scheduler is not forked and reads results in
every loop. Each time it builds an engine, and Postgres forks a process and checks a password. That takes a sixth of a
scheduler's time under load (py-spy), and as much again in Postgres.
Patch: treat the scheduler as forked. Celery's own retry replaces a lost connection.
Applies to: celery 5.6.3, `celery.backends.database.session`. Schedulers only: a worker's children would inherit it.
Upstream issue: https://github.com/apache/airflow/pull/41870
Remove when: `test_upstream_connects_for_each_query` fails.
"""

from __future__ import annotations

from typing import Any

from celery.backends.database.session import SessionManager

_get_engine: Any = SessionManager.get_engine


def get_engine(self: SessionManager, dburi: str, **options: Any) -> Any:
    """Return the engine as upstream does in a forked process: one engine per database."""
    self.forked = True
    return _get_engine(self, dburi, **options)


def apply() -> None:
    """Keep a scheduler's engine of the result backend."""
    SessionManager.get_engine = get_engine
