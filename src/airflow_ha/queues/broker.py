"""A scheduler's connection to the broker's Redis through Celery, with the same Sentinels and passwords as tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Broker:
    """A persistent connection that is replaced after an error; it is not thread-safe."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._channel: Any = None

    def call(self, use: Callable[[Any], T]) -> T:
        """Return the result of `use`, called with a client of redis-py.

        Raises:
            Exception: Redis does not respond within its socket timeouts. Celery's default channel would wait without a
                limit.
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
