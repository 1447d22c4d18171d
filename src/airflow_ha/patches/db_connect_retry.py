"""Schedulers, the DAG processor and the triggerer retry database connections instead of exiting.

Problem: during a primary election (2 to 30 s) no connection succeeds, and the first failing query ends the process.
All three end within the same second. Their restarts import Airflow in parallel and take two cores for half a minute.
The new primary, its replica and the waiting tasks need the CPU at that moment.
Patch: retry a metadata connection for PATIENCE_SECONDS, not counting the time that this thread waited for a CPU. Errors
inside a transaction still fail. A permanent SQLSTATE (wrong password, unknown database) fails at once; with drivers
other than psycopg2 it is retried too.
Applies to: SQLAlchemy 2.0.54, by its event `do_connect`. API servers, whose clients retry, and engines of DAG code
are excluded.
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
"""Timeout for reading the SQLSTATE of a refusal; equal to `connect_timeout`."""
PERMANENT: Final = ("28", "3D000")
"""Prefixes of SQLSTATEs that a retry cannot fix: invalid authorization, unknown database."""


def connect(dialect: Dialect, _record: object, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
    """Return a new connection; retry until it succeeds.

    Raises:
        Exception: The driver's OperationalError, after PATIENCE_SECONDS or at once if it is permanent.
    """
    if dialect.is_async:
        return None  # an event loop must not wait here: let SQLAlchemy connect
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
    """Return whether Postgres refuses the connection with an SQLSTATE that a retry cannot fix."""
    if dialect.driver != "psycopg2":
        return False
    state = connect_sqlstate(cargs, cparams, ANSWER_SECONDS)
    return state is not None and state.startswith(PERMANENT)


def attach(engine: Engine) -> None:
    """Retry every connection of this engine."""
    event.listen(engine, "do_connect", connect)


def apply() -> None:
    """Retry every connection to the metadata database."""
    on_metadata_engine(attach)
