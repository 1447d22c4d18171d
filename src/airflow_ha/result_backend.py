"""Celery's result backend without pickle, which the setting `override_backends` selects (compose/airflow.yaml).

Celery's own backend stores each result as a pickle and decodes it in the scheduler. A task can reach the database, so
its row would run code there. Airflow reads nothing of a result but its state, so this backend has no result at all:
the columns are text, and workers write by one function of the database (result_database.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from celery.backends.database import RETRYABLE_DB_ERRORS, DatabaseBackend, session_cleanup
from celery.states import PROPAGATE_STATES
from sqlalchemy import Column, DateTime, String, Text, text
from sqlalchemy.orm import declarative_base

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "results"
STORE = text(f"SELECT {SCHEMA}.store(:task_id, :status, :traceback)")


send: Callable[[dict[str, Any]], None] | None = None
"""In a worker: hands a state to the process that stores it (result_channel.py)."""


class TaskFailedError(Exception):
    """A message failed; its text is the last line of the traceback that the worker stored."""


class Result(declarative_base()):  # type: ignore[misc]  # a class that SQLAlchemy makes
    """The state of a message."""

    __tablename__ = "celery_taskmeta"
    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012

    task_id: Any = Column(String(155), primary_key=True)
    status: Any = Column(String(50), nullable=False)
    date_done: Any = Column(DateTime, nullable=False)
    traceback: Any = Column(Text)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def to_dict(self) -> dict[str, Any]:
        """Return the state as Celery's own model does; the result is None, or an exception of this module."""
        failed = self.status in PROPAGATE_STATES
        return {
            "task_id": self.task_id,
            "status": self.status,
            "result": TaskFailedError((self.traceback or "").strip().rpartition("\n")[2]) if failed else None,
            "traceback": self.traceback,
            "date_done": self.date_done,
        }

    @classmethod
    def configure(cls, **_: Any) -> None:
        """Keep the names of schema and table: the function of the database has them too."""


class ResultBackend(DatabaseBackend):  # type: ignore[misc]  # Celery has no types
    """Stores and reads the states of messages, and nothing else."""

    task_cls = Result

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task_cls = Result  # with `result_extended` Celery chooses its own model, with pickles

    def ResultSession(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802  # Celery's name
        """Open a session without Celery's check that the tables exist: `migrate` creates them."""
        self.session_manager.prepared = True
        return super().ResultSession(*args, **kwargs)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> None:
        del result, request
        values = {"task_id": task_id, "status": state, "traceback": None if traceback is None else str(traceback)}
        if send is None:
            store(self, values)
        else:
            send(values)

    def _unsupported(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("cannot use groups or chords: their results are pickles")

    _save_group = _restore_group = _delete_group = cleanup = _unsupported


def store(backend: ResultBackend, values: dict[str, Any]) -> None:
    """Store a state with one statement; after an error the next one gets a new connection.

    Celery's retry, three times at once, is left out: result_channel.py retries for as long as a failover takes.
    """
    session = backend.ResultSession()
    try:
        with session_cleanup(session):
            session.execute(STORE, values)
            session.commit()
    except RETRYABLE_DB_ERRORS as error:
        backend.on_backend_retryable_error(error)
        raise
