"""A scheduler, dag-processor or triggerer waits for its database to come back, rather than ending.

The fault, in Airflow 3.3.2: while a new primary is elected (2 to 30 s) no connection can be had, and whatever query
comes first ends the process. Both schedulers, the dag-processor and the triggerer end within the same second, are
started again at once, and import Airflow side by side: half a minute of two cores, in the very moment when the new
primary, its replica and every waiting task want them.

The work-round: those three take their time over a connection: a host that refuses, is read-only or still starts is
tried again, for PATIENCE_SECONDS. An error in the middle of a transaction is still an error, and what Airflow retries
by itself then gets its connection. A wrong password, or a database that is not there, is one at once. The API servers
do not wait: their callers get an answer, and try again.

No upstream issue asks for this; https://docs.sqlalchemy.org/en/20/core/events.html#sqlalchemy.events.DialectEvents is
the hook. It can go when a scheduler of upstream's survives `./ops/stack drill postgres-primary-gone` without a restart.
Loaded with the database's settings (compose/airflow.yaml).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

log = logging.getLogger(__name__)

PATIENCE_SECONDS: float = 40.0
"""Longer than a fail-over of Postgres takes, shorter than a health check's patience (guard.sh: six times 10 s)."""
RETRY_SECONDS: Final = 0.25
PERMANENT: Final = ("authentication failed", "does not exist", "no pg_hba.conf entry")
"""What Postgres says of a connection that no waiting will mend."""


def connect(dialect: Dialect, _record: object, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
    """A new connection, as soon as there is one to be had.

    Raises:
        Exception: The driver's own OperationalError, when none is to be had within PATIENCE_SECONDS, or ever.
    """
    if dialect.is_async:
        return None  # an event loop must not wait here; SQLAlchemy connects in its own way
    started = time.monotonic()
    while True:
        try:
            return dialect.connect(*cargs, **cparams)
        except dialect.loaded_dbapi.OperationalError as error:
            waited = time.monotonic() - started
            if waited > PATIENCE_SECONDS or any(said in str(error) for said in PERMANENT):
                raise
            log.warning("no connection to the database for %.1f s: %s", waited, str(error).strip())
            time.sleep(RETRY_SECONDS)


def apply() -> None:
    """Wait for every connection of this process."""
    event.listen(Engine, "do_connect", connect)
