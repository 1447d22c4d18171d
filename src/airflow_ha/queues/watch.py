"""A scheduler's copy of the consumed queues, refreshed by a thread, so no scheduler loop waits for Redis."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from airflow_ha.queues import queue_registry

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESH_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class Watch:
    """The consumed queues from the last read.

    After an outage of Redis the queues that were consumed before it count as consumed for CONSUMED_SECONDS, because
    their workers could not announce them either.
    """

    def __init__(
        self, read: Callable[[], queue_registry.Consumed | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._consumed: queue_registry.Consumed | None = None
        self._before = queue_registry.Consumed()
        self._grace_ends = float("-inf")
        self._failed = False

    def consumed(self) -> queue_registry.Consumed | None:
        """Return the consumed queues; None while they are unknown, and then no task may be held back."""
        if self._thread is None:  # started at the first call: a process that is forked before has no dead thread
            with self._lock:
                if self._thread is None:
                    self.refresh()
                    self._thread = threading.Thread(target=self._run, name="consumed-queues", daemon=True)
                    self._thread.start()
        return self._consumed

    @property
    def is_reading(self) -> bool:
        """Whether the last read succeeded."""
        return not self._failed

    def refresh(self) -> None:
        """Read the registry once."""
        now = self._clock()
        try:
            consumed = self._read()
        except Exception as error:
            if not self._failed:
                log.warning("cannot read the consumed queues: %s", error)
            if self._grace_ends <= now:
                self._before = self._consumed or queue_registry.Consumed()
            self._grace_ends = now + queue_registry.CONSUMED_SECONDS
            self._failed = True
            return
        self._failed = False
        self._consumed = self._before | consumed if consumed is not None and now < self._grace_ends else consumed

    def _run(self) -> None:
        while True:
            time.sleep(REFRESH_SECONDS)
            self.refresh()
