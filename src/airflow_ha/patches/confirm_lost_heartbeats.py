"""A task counts as dead when the scheduler has seen it silent for a while, not when it looks after an absence.

Problem: the scheduler compares each running task's last heartbeat with the clock, once. A scheduler that only waited
(on a frozen database, or frozen itself) finds every heartbeat too old the moment it goes on, and runs every healthy
task a second time. A clock that jumps forward does the same.
Patch: a task must have been silent at every look for CONFIRM_SECONDS; a long time between two looks counts as a short
one. The first look comes that much earlier, so that a dead worker's tasks wait no longer. Where the scheduler waited
for a CPU in more than half of the time between two looks, only the rest of it counts: heartbeats are late too.
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
"""Long enough for every heartbeat to arrive once the database is back: one is sent every 5 s, and one under way may
take another 5 s to fail (`[workers] execution_api_timeout`)."""

COUNTED_SECONDS = 5.0
"""At most so much of the time between two looks counts: whether heartbeats could be written in the rest is unknown."""

STARVED_SHARE = 0.5
"""A thread that waits for a CPU in more of its time is starved: 55% to 81% with a tenth of two cores for the stack."""

_find: Any = SchedulerJobRunner._find_task_instances_without_heartbeats


class Patience:
    """What one scheduler has seen of the tasks that are silent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, cpu_wait: Callable[[], float] = cpu_wait) -> None:
        self._clock = clock
        self._cpu_wait = cpu_wait
        self._looked, self._waited = clock(), cpu_wait()
        self._seen: dict[Silence, float] = {}

    def look(self, silent: Iterable[Silence]) -> set[UUID]:
        """Takes note of the tasks that are silent now, each with its last heartbeat; tells those that were long enough.

        A heartbeat, or another attempt, begins anew.
        """
        now, waited = self._clock(), self._cpu_wait()
        elapsed, waiting = now - self._looked, waited - self._waited
        self._looked, self._waited = now, waited
        counted = min(elapsed, COUNTED_SECONDS)
        if waiting > STARVED_SHARE * elapsed:
            counted *= max(0.0, 1 - waiting / elapsed)
        self._seen = {one: self._seen[one] + counted if one in self._seen else 0.0 for one in silent}
        return {task for (task, _), seconds in self._seen.items() if seconds >= CONFIRM_SECONDS}


_patience = Patience()


def find_task_instances_without_heartbeats(self: SchedulerJobRunner, *, session: Session) -> list[TaskInstance]:
    """As upstream's, but only those that were silent for long enough under this scheduler's eyes."""
    early = self._task_instance_heartbeat_timeout_secs - CONFIRM_SECONDS
    silent = session.execute(
        select(TaskInstance.id, TaskInstance.last_heartbeat_at).where(
            TaskInstance.state.in_((TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)),
            TaskInstance.last_heartbeat_at < timezone.utcnow() - timedelta(seconds=early),
            TaskInstance.queued_by_job_id == self.job.id,
        )
    )
    dead = _patience.look((task, heartbeat) for task, heartbeat in silent)
    # Upstream's own look tells of each task it finds that it fails it.
    return [one for one in _find(self, session=session) if one.id in dead] if dead else []


def apply() -> None:
    """Confirm that a task is silent before it counts as dead."""
    SchedulerJobRunner._find_task_instances_without_heartbeats = find_task_instances_without_heartbeats
