"""A scheduler's view of the consumed queues, kept fresh by a thread: no scheduler loop waits for Redis."""

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
    """The consumed queues as last read.

    After Redis did not answer, the queues that were consumed before count as consumed for CONSUMED_SECONDS: their
    workers could not announce them either.
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
        """Return what workers consume; None while that is not known, and then no task may be held back for it."""
        if self._thread is None:  # at the first call, so that no process forked before inherits half a thread
            with self._lock:
                if self._thread is None:
                    self.refresh()
                    self._thread = threading.Thread(target=self._run, name="consumed-queues", daemon=True)
                    self._thread.start()
        return self._consumed

    @property
    def is_reading(self) -> bool:
        """Whether Redis answered the last read."""
        return not self._failed

    def refresh(self) -> None:
        """Read the registry once."""
        now = self._clock()
        try:
            consumed = self._read()
        except Exception as error:
            if not self._failed:
                log.warning("cannot read which queues are consumed: %s", error)
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
