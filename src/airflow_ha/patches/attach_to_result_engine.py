"""The connection patches also cover the engines of Celery's result backend (engines.py).

Problem: Celery creates an engine for its results and offers no hook for it. So schedulers and workers wait for a frozen
node at each connection, and forever for a frozen primary.
Patch: report each engine that Celery creates to engines.py.
Applies to: celery 5.6.3, `celery.backends.database.session`. Schedulers and workers.
Upstream issue: none found.
Remove when: `[celery] database_engine_options` accepts listeners, or no patch attaches to the result engine.
"""

from __future__ import annotations

from typing import Any

from celery.backends.database import session

from airflow_ha.patches.engines import result_engine_created

_session: Any = session
_create_engine: Any = _session.create_engine


def create_engine(*args: Any, **options: Any) -> Any:
    """Create an engine with SQLAlchemy, and report it before its first connection."""
    engine = _create_engine(*args, **options)
    result_engine_created(engine)
    return engine


def apply() -> None:
    """Report each engine of Celery's result backend."""
    _session.create_engine = create_engine
