"""The `execution_timeout` clock stops while a task is suspended.

Problem: the timer of `execution_timeout` (ITIMER_REAL) keeps running while a task process is stopped
(heartbeat_lease.py), and SIGALRM arrives with SIGCONT. A task that was suspended for longer than its remaining time
fails as it resumes.
Patch: the handler subtracts the time of suspensions, and sets the timer for the remaining time. Time in which the whole
worker is frozen (docker pause), before it can suspend a task, still counts, as upstream.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.timeout`. Workers, which fork the tasks.
Upstream issue: none found.
Remove when: heartbeat_lease.py is removed.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time import timeout as upstream

from airflow_ha.task_process import suspension

if TYPE_CHECKING:
    from types import FrameType

MIN_TIMER_SECONDS = 0.001
"""Shortest timer: 0 would switch it off."""


class SuspendableTimeout(upstream.TimeoutPosix):  # type: ignore[misc]  # Airflow has no types
    """Upstream's timeout, without the time of suspensions."""

    def __enter__(self) -> Any:
        self._started, self._held = time.monotonic(), suspension.held_seconds()
        return super().__enter__()

    def handle_timeout(self, signum: int, frame: FrameType | None) -> None:
        """Raise as upstream does, or set the timer for the remaining time.

        Raises:
            AirflowTaskTimeout: The task used its whole time.
        """
        now = time.monotonic()  # first: a suspension from here on is not run time
        held_since_start = suspension.held_seconds() - self._held
        remaining = self.seconds - (now - self._started - held_since_start)
        if held_since_start > 0 and remaining > 0:
            signal.setitimer(signal.ITIMER_REAL, max(remaining, MIN_TIMER_SECONDS))
            return
        super().handle_timeout(signum, frame)


def apply() -> None:
    """Count only the time in which a task is not suspended."""
    upstream.timeout = SuspendableTimeout
