"""A scheduler, dag-processor or triggerer waits for its database to come back, rather than ending.

Problem: while a new primary is elected (2 to 30 s) no connection can be had, and whatever query comes first ends the
process. Schedulers, dag-processor and triggerer end within the same second and import Airflow side by side: half a
minute of two cores, when the new primary, its replica and every waiting task want them.
Patch: a connection to the metadata database is tried again for PATIENCE_SECONDS, without the time for which this thread
waited for a CPU. An error within a transaction is still one. What Postgres refuses for good by its SQLSTATE (a wrong
password, no such database) is an error at once; with another driver than psycopg2 it is waited for too.
Applies to: SQLAlchemy 2.0.54, by its event `do_connect`. Not API servers, whose callers try again; not an engine of a
DAG's own.
Upstream issue: none found.
Remove when: an unpatched scheduler survives `./ops/stack drill postgres-primary-gone` without a restart.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from airflow_ha.cpu_wait import cpu_wait
from airflow_ha.patches.connect_sqlstate import connect_sqlstate
from airflow_ha.patches.engines import on_metadata_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import Dialect

log = logging.getLogger(__name__)

PATIENCE_SECONDS: float = 40.0
"""Longer than a failover of Postgres, shorter than six failed health checks, 10 s apart (restart-when-unhealthy.sh)."""
RETRY_SECONDS: Final = 0.25
ANSWER_SECONDS: Final = 3.0
"""For the question with which SQLSTATE a connection is refused; as `connect_timeout`."""
PERMANENT: Final = ("28", "3D000")
"""What SQLSTATEs begin with that no waiting changes: no authorization, no such database."""


def connect(dialect: Dialect, _record: object, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
    """A new connection, as soon as there is one to be had.

    Raises:
        Exception: The driver's own OperationalError, when none is to be had within PATIENCE_SECONDS, or ever.
    """
    if dialect.is_async:
        return None  # an event loop must not wait here; SQLAlchemy connects in its own way
    started, cpu_waited = time.monotonic(), cpu_wait()
    while True:
        try:
            return dialect.connect(*cargs, **cparams)
        except dialect.loaded_dbapi.OperationalError as error:
            waited = time.monotonic() - started - (cpu_wait() - cpu_waited)
            if waited > PATIENCE_SECONDS or is_permanent(dialect, cargs, cparams):
                raise
            log.warning("no connection to the database for %.1f s: %s", waited, str(error).strip())
            time.sleep(RETRY_SECONDS)


def is_permanent(dialect: Dialect, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> bool:
    """Return whether Postgres refuses such a connection with a state that no waiting changes."""
    if dialect.driver != "psycopg2":
        return False
    state = connect_sqlstate(cargs, cparams, ANSWER_SECONDS)
    return state is not None and state.startswith(PERMANENT)


def attach(engine: Engine) -> None:
    """Wait for every connection of this engine."""
    event.listen(engine, "do_connect", connect)


def apply() -> None:
    """Wait for every connection to the metadata database."""
    on_metadata_engine(attach)
