"""A slot of the executor is free again when its task is finished, cleared or gone.

Problem: CeleryExecutor 3.22 keeps a task in `running` until Celery has a result for its message. A message that no
worker will ever take (its queue has no worker, or Redis lost it) has none: when such a task is marked failed or
cleared, its slot is lost until the scheduler restarts.
Patch: every 10 s the executor's tasks are compared with those that the database has queued or running. What is missing
there twice, LEAK_SECONDS apart, is dropped.
Applies to: airflow.jobs.scheduler_job_runner 3.3.2.
Upstream issue: none found.
Remove when: the test in test_release_leaked_slots.py that names upstream fails.
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
"""A task that has ended keeps its slot for a second or two, until its worker's result is read."""
HOLDING: Final = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)

log = logging.getLogger(__name__)

_requeue: Any = SchedulerJobRunner._handle_tasks_stuck_in_queued
_suspected: dict[tuple[TaskInstanceKey, str | None], float] = {}
"""Since when, by the monotonic clock, a task and its message have been missing in the database."""


@functools.wraps(_requeue)
def handle_tasks_stuck_in_queued(self: SchedulerJobRunner, *arguments: Any, **named: Any) -> None:
    """Upstream's; then drops leaked tasks."""
    _requeue(self, *arguments, **named)
    try:
        with create_session() as session:
            for executor in self.executors:
                drop_leaked(executor, session)
    except Exception:
        log.warning("cannot look for leaked slots of the executor", exc_info=True)


def drop_leaked(executor: Any, session: Session) -> None:
    """Drop the tasks that the database has neither queued nor running, for the second time."""
    now = time.monotonic()
    missing = set(unknown(executor, session))
    for suspect in _suspected.keys() - missing:
        del _suspected[suspect]
    leaked = [key for key, message in missing if now - _suspected.setdefault((key, message), now) >= LEAK_SECONDS]
    for key in leaked:
        executor.running.discard(key)
        executor.queued_tasks.pop(key, None)
        executor.workloads.pop(key, None)
        executor.workload_publish_retries.pop(key, None)
    if leaked:
        log.warning("%d leaked slot(s) of the executor are free again: %s", len(leaked), leaked[:10])


def unknown(executor: CeleryExecutor, session: Session) -> Iterator[tuple[TaskInstanceKey, str | None]]:
    """Yield the executor's tasks, with their messages' ids, that the database has not queued or running under them."""
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
    ).where(TaskInstance.state.in_(HOLDING))
    known = {TaskInstanceKey(*key): message for *key, message in session.execute(columns)}
    for key in held:
        result = executor.workloads.get(key)
        message = result.task_id if result else None
        if key not in known or (message and known[key] and message != known[key]):
            yield key, message


def apply() -> None:
    """Compare the executor's slots with the database."""
    SchedulerJobRunner._handle_tasks_stuck_in_queued = handle_tasks_stuck_in_queued
