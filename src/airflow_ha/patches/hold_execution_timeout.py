"""Patch of Airflow: `execution_timeout` does not run while a task is suspended.

Problem: the timer of `execution_timeout` (ITIMER_REAL) runs on while a task's process is stopped (heartbeat_lease.py),
and SIGALRM arrives with SIGCONT: a task that was suspended for longer than it had left fails as it goes on.
Patch: the handler takes off for how long its supervisor held the task, and sets the timer again for what is left. The
time of a worker that is frozen as a whole (docker pause) before it can suspend anything counts, as upstream's.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.timeout`. Workers: tasks are
forked from them.
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

LEAST_SECONDS = 0.001
"""A timer that is set to nothing is off."""


class HeldTimeout(upstream.TimeoutPosix):  # type: ignore[misc]  # Airflow has no types
    """As upstream's, of the time in which the task was not suspended."""

    def __enter__(self) -> Any:
        self._begun, self._held = time.monotonic(), suspension.held_seconds()
        return super().__enter__()

    def handle_timeout(self, signum: int, frame: FrameType | None) -> None:
        """Raise as upstream's, or wait for the time that is left.

        Raises:
            AirflowTaskTimeout: The task has run for as long as it may.
        """
        now = time.monotonic()  # first: a suspension that comes next is held time, and no run time
        held = suspension.held_seconds() - self._held
        left = self.seconds - (now - self._begun - held)
        if held > 0 and left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, LEAST_SECONDS))
            return
        super().handle_timeout(signum, frame)


def apply() -> None:
    """Count the time of `execution_timeout` only while a task is not suspended."""
    upstream.timeout = HeldTimeout
