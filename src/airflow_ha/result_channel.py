"""The main process of a worker stores the results of its pool processes.

So these need no log-in to the database, and tasks, which are forked from them, cannot find one in their memory
(task_process/log_ins.py). A pool process writes a line to a pipe before it reports that a task is over. A thread of the
main process stores it, with one connection. If the main process crashes in between, the result is lost; schedulers
drop the task when they find it finished in the database (release_leaked_slots.py). Workers load this module
(patches/loader.py).
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from celery import current_app
from celery.backends.database import RETRYABLE_DB_ERRORS
from celery.signals import worker_ready, worker_shutdown

from airflow_ha import result_backend

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS: Final = 120.0
"""How long a result is retried: longer than a failover of the database."""
PAUSE_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 20.0
"""How long a stopping worker waits for the database."""

log = logging.getLogger(__name__)


class ResultChannel:
    """A pipe from the processes of a worker to its main process. Create it before the pool is forked."""

    def __init__(self) -> None:
        self.receiving, self.sending = os.pipe()
        self._thread: threading.Thread | None = None

    def send(self, values: dict[str, Any]) -> None:
        """Hand over a result; blocks while the pipe is full."""
        os.write(self.sending, line_of(values))

    def start(self, store: Callable[[dict[str, Any]], None]) -> None:
        """Start to store the results."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._receive, args=(store,), name="results", daemon=True)
            self._thread.start()

    def drain(self) -> None:
        """Store what is left, once the pool has ended."""
        os.close(self.sending)
        if self._thread is not None:
            self._thread.join(DRAIN_SECONDS)

    def _receive(self, store: Callable[[dict[str, Any]], None]) -> None:
        with os.fdopen(self.receiving, "rb") as lines:
            for line in lines:
                store_for_a_while(store, json.loads(line))


def line_of(values: dict[str, Any]) -> bytes:
    """Return a result as a line that a pipe takes as a whole; of a long traceback only the end is kept."""
    traceback = values["traceback"] or ""
    while True:
        line = json.dumps({**values, "traceback": traceback or None}).encode() + b"\n"
        if len(line) <= select.PIPE_BUF:
            return line
        traceback = traceback[len(traceback) // 2 + 1 :]


def store_for_a_while(store: Callable[[dict[str, Any]], None], values: dict[str, Any]) -> None:
    """Store a result; retry while the database is not available, and then give up."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return store(values)
        except RETRYABLE_DB_ERRORS as error:
            if time.monotonic() > deadline:
                log.exception("cannot store the result of the message %s", values["task_id"])
                return None
            log.warning("cannot store the result of the message %s yet: %s", values["task_id"], error)
            time.sleep(PAUSE_SECONDS)


def store_by_database(values: dict[str, Any]) -> None:
    """Store a result with this thread's own backend, which keeps its connection."""
    backend: Any = current_app.backend
    backend.session_manager.forked = True
    result_backend.store(backend, values)


channel: Final = ResultChannel()
result_backend.send = channel.send


@worker_ready.connect  # type: ignore[untyped-decorator]
def start(**_: Any) -> None:
    """Start the thread after the pool was forked."""
    channel.start(store_by_database)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def drain(**_: Any) -> None:
    """Store the last results before the main process exits."""
    channel.drain()
