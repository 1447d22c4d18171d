"""The scheduler fails a task for missing heartbeats only after it has observed the silence for a while.

Problem: the scheduler compares each running task's last heartbeat with the clock, once. A scheduler that was blocked
(by a frozen database, or frozen itself) finds every heartbeat too old when it resumes, and reruns every healthy task.
A clock that jumps forward has the same effect.
Patch: fail a task only if each check for CONFIRM_SECONDS found it silent. A long gap between two checks counts as a
short one. The first check runs earlier by the same time, so a dead worker's tasks are found no later. If the scheduler
waited for a CPU for more than half of a gap, that wait does not count, because heartbeats are delayed too.
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`.
Upstream issue: none found.
Remove when: the test in `test_confirm_lost_heartbeats.py` that names upstream fails.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from airflow_ha.cpu_wait import cpu_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.orm import Session

    Silence = tuple[UUID, datetime]

CONFIRM_SECONDS = 12.0
"""Enough for every heartbeat to arrive after an outage: one is sent every 5 s, and a pending one may need another 5 s
to fail (`[workers] execution_api_timeout`)."""

COUNTED_SECONDS = 5.0
"""Most time that counts between two checks: whether heartbeats could be written in the rest is unknown."""

STARVED_SHARE = 0.5
"""A thread that waits for a CPU for more than this share is starved (55% to 81% with a tenth of two cores)."""

_find: Any = SchedulerJobRunner._find_task_instances_without_heartbeats


class SilenceTracker:
    """How long one scheduler has observed each silent task."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, cpu_wait: Callable[[], float] = cpu_wait) -> None:
        self._clock = clock
        self._cpu_wait = cpu_wait
        self._checked_at, self._cpu_waited = clock(), cpu_wait()
        self._silent_seconds: dict[Silence, float] = {}

    def record(self, silent: Iterable[Silence]) -> set[UUID]:
        """Record the tasks that are silent now, each with its last heartbeat; return those silent for long enough.

        A new heartbeat, or another try, restarts the count.
        """
        now, waited = self._clock(), self._cpu_wait()
        elapsed, waiting = now - self._checked_at, waited - self._cpu_waited
        self._checked_at, self._cpu_waited = now, waited
        counted = min(elapsed, COUNTED_SECONDS)
        if waiting > STARVED_SHARE * elapsed:
            counted *= max(0.0, 1 - waiting / elapsed)
        previous = self._silent_seconds
        self._silent_seconds = {key: previous[key] + counted if key in previous else 0.0 for key in silent}
        return {task for (task, _), seconds in self._silent_seconds.items() if seconds >= CONFIRM_SECONDS}


_tracker = SilenceTracker()


def find_task_instances_without_heartbeats(self: SchedulerJobRunner, *, session: Session) -> list[TaskInstance]:
    """Return the upstream result, limited to tasks that this scheduler observed silent for long enough."""
    early = self._task_instance_heartbeat_timeout_secs - CONFIRM_SECONDS
    silent = session.execute(
        select(TaskInstance.id, TaskInstance.last_heartbeat_at).where(
            TaskInstance.state.in_((TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)),
            TaskInstance.last_heartbeat_at < timezone.utcnow() - timedelta(seconds=early),
            TaskInstance.queued_by_job_id == self.job.id,
        )
    )
    dead = _tracker.record((task, heartbeat) for task, heartbeat in silent)
    # Upstream logs a failure for each task that it returns: call it only if a task is confirmed.
    return [task for task in _find(self, session=session) if task.id in dead] if dead else []


def apply() -> None:
    """Confirm the silence of a task before it is failed."""
    SchedulerJobRunner._find_task_instances_without_heartbeats = find_task_instances_without_heartbeats
