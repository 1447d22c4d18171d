"""The record of maintenance in the metadata database: who approved it, and when it last succeeded."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

CREATE: Final = """
CREATE TABLE IF NOT EXISTS airflow_ha_maintenance (
  id integer PRIMARY KEY CHECK (id = 1),
  first_seen timestamptz NOT NULL DEFAULT now(),
  approved timestamptz,
  succeeded timestamptz);
INSERT INTO airflow_ha_maintenance (id) VALUES (1) ON CONFLICT DO NOTHING
"""

APPROVED: Final = timedelta(days=14)


class BusyError(RuntimeError):
    """Another process does maintenance."""


class Record(NamedTuple):
    """The times of the record.

    Attributes:
        first_seen: When maintenance started for the first time on this database.
        approved: When an operator ran it, or it found nothing to remove.
        succeeded: When all steps of a run last succeeded.
    """

    first_seen: datetime
    approved: datetime | None
    succeeded: datetime | None

    def is_approved(self, now: datetime) -> bool:
        """Return whether a run may remove what is old.

        An approval ends 14 days after the last success: a restored backup of last year must not lose its history
        at its first start.
        """
        return self.approved is not None and now - max(self.approved, self.succeeded or self.approved) < APPROVED


def read(engine: Engine) -> Record:
    """Return the record; create it if there is none."""
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE)
        return Record(
            *connection.execute(text("SELECT first_seen, approved, succeeded FROM airflow_ha_maintenance")).one()
        )


def approve(engine: Engine) -> None:
    """Let maintenance remove what is old, from now on and for as long as it succeeds."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE airflow_ha_maintenance SET approved = now()"))


def succeed(engine: Engine) -> None:
    """Record that all steps of a run succeeded."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE airflow_ha_maintenance SET succeeded = now()"))


@contextmanager
def sole_run(engine: Engine) -> Iterator[None]:
    """Hold the lock of maintenance for the duration of the block; Postgres releases it when the process ends.

    Raises:
        BusyError: another process holds it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # its end closes it, and so releases the lock
        if not connection.scalar(text("SELECT pg_try_advisory_lock(hashtext('airflow_ha_maintenance'))")):
            raise BusyError(
                "cannot start maintenance: it runs already. hint: wait, or see ./ops/stack logs maintenance"
            )
        yield
