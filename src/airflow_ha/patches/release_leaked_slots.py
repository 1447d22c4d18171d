"""An executor slot is released when its task is finished, cleared or deleted.

Problem: CeleryExecutor (provider 3.24.0) keeps a task in `running` until Celery has a result for its message. A message
that no worker ever takes (its queue has no worker, or Redis lost it) has no result. If such a task is marked failed or
cleared, its slot is lost until the scheduler restarts.
Patch: every 10 s, compare the executor's tasks with the queued and running tasks in the database. Drop a task that is
missing there twice, LEAK_SECONDS apart.
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`.
Upstream issue: none found.
Remove when: the test in `test_release_leaked_slots.py` that names upstream fails.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.celery.executors.celery_executor import CeleryExecutor
    from sqlalchemy.orm import Session

LEAK_SECONDS: Final = 20.0
"""A finished task keeps its slot for a second or two, until the scheduler reads its result."""
SLOT_STATES: Final = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)

log = logging.getLogger(__name__)

_requeue: Any = SchedulerJobRunner._handle_tasks_stuck_in_queued
_missing_since: dict[tuple[TaskInstanceKey, str | None], float] = {}
"""Monotonic time since which a task, with its message, has been missing in the database."""


@functools.wraps(_requeue)
def handle_tasks_stuck_in_queued(self: SchedulerJobRunner, *arguments: Any, **named: Any) -> None:
    """Call the upstream method, then drop leaked tasks."""
    _requeue(self, *arguments, **named)
    try:
        with create_session() as session:
            for executor in self.executors:
                drop_leaked(executor, session)
    except Exception:
        log.warning("cannot check for leaked slots of the executor", exc_info=True)


def drop_leaked(executor: Any, session: Session) -> None:
    """Drop the tasks that have been neither queued nor running in the database for LEAK_SECONDS."""
    now = time.monotonic()
    missing = set(untracked_tasks(executor, session))
    for key_and_message in _missing_since.keys() - missing:
        del _missing_since[key_and_message]
    leaked = [key for key, message in missing if now - _missing_since.setdefault((key, message), now) >= LEAK_SECONDS]
    for key in leaked:
        executor.running.discard(key)
        executor.queued_tasks.pop(key, None)
        executor.workloads.pop(key, None)
        executor.workload_publish_retries.pop(key, None)
    if leaked:
        log.warning("released %d leaked slot(s) of the executor: %s", len(leaked), leaked[:10])


def untracked_tasks(executor: CeleryExecutor, session: Session) -> Iterator[tuple[TaskInstanceKey, str | None]]:
    """Yield the executor's tasks, with message ids, that are not queued or running in the database with that id."""
    held = [key for key in {*executor.running, *executor.queued_tasks} if isinstance(key, TaskInstanceKey)]
    if not held:
        return
    columns = select(
        TaskInstance.dag_id,
        TaskInstance.task_id,
        TaskInstance.run_id,
        TaskInstance.try_number,
        TaskInstance.map_index,
        TaskInstance.external_executor_id,
    ).where(TaskInstance.state.in_(SLOT_STATES))
    tracked = {TaskInstanceKey(*key): message for *key, message in session.execute(columns)}
    for key in held:
        result = executor.workloads.get(key)
        message = result.task_id if result else None
        if key not in tracked or (message and tracked[key] and message != tracked[key]):
            yield key, message


def apply() -> None:
    """Compare the executor's slots with the database."""
    SchedulerJobRunner._handle_tasks_stuck_in_queued = handle_tasks_stuck_in_queued
