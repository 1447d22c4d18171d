"""A scheduler's own connection to the broker's Redis, made by Celery: Sentinels and passwords are as for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Broker:
    """A connection that is kept, and replaced after an error. For one thread."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._channel: Any = None

    def call(self, use: Callable[[Any], T]) -> T:
        """Return what `use` returns for a client of redis-py.

        Raises:
            Exception: Redis does not answer. It is not waited for longer than its socket timeouts: Celery's default
                channel would be, for as long as that takes.
        """
        try:
            if self._channel is None:
                from airflow.providers.celery.executors.celery_executor_utils import app

                self._connection = app.connection_for_write()
                self._channel = self._connection.channel()
            with self._channel.conn_or_acquire() as client:
                return use(client)
        except Exception:
            broken, self._connection, self._channel = self._connection, None, None
            if broken is not None:
                broken.close()
            raise
