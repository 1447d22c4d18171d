"""The engines of Celery's results get what patches attach to them (engines.py).

Problem: Celery makes an engine for its results and has no hook for it: a scheduler or a worker then waits
for a frozen node at each connection, and for a frozen primary without end.
Patch: each engine that it creates is reported to engines.py.
Applies to: celery 5.6.3, `celery.backends.database.session`. Schedulers and workers.
Upstream issue: none found.
Remove when: `[celery] database_engine_options` takes listeners, or no patch attaches to results.
"""

from __future__ import annotations

from typing import Any

from celery.backends.database import session

from airflow_ha.patches.engines import result_engine_created

_session: Any = session
_create_engine: Any = _session.create_engine


def create_engine(*args: Any, **options: Any) -> Any:
    """As SQLAlchemy's; the engine has what patches attach before its first connection."""
    engine = _create_engine(*args, **options)
    result_engine_created(engine)
    return engine


def apply() -> None:
    """Report each engine of Celery's results."""
    _session.create_engine = create_engine
