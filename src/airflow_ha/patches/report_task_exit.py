"""Patch of Airflow: a task whose process ended says why in its log, and its callbacks run.

Problem: when a task's process is killed or exits, its supervisor reports FAILED or UP_FOR_RETRY itself. Nobody runs the
callbacks of the task, nor sends its e-mails, and the log guesses ("Likely out of memory").
Patch: the supervisor reports nothing and fails its Celery task. The scheduler finds a task that ended and is RUNNING,
which it handles within seconds: retries, callbacks (by the DAG processor) and e-mails, as for a worker that was lost.
The log says what ended the process, with its peak memory; so do the metrics `ha_task_killed` and `ha_task_peak_bytes`.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor`.
Upstream issue: none found.
Remove when: `test_upstream_reports_the_state_itself` fails.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from airflow.configuration import conf
from airflow.observability import stats
from airflow.observability.metrics import stats_utils
from airflow.sdk.api.datamodels._generated import TaskInstanceState
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from airflow_ha.patches import isolate_task_process
from airflow_ha.task_process import container_memory
from airflow_ha.task_process.ending import Ending

_update_task_state: Any = ActivitySubprocess.update_task_state_if_needed
FAILED = (TaskInstanceState.FAILED, TaskInstanceState.UP_FOR_RETRY)


class TaskProcessEndedError(RuntimeError):
    """A task's process ended before its task had."""


def ended_without_a_state(task: ActivitySubprocess) -> bool:
    """Whether a process ended before it said how its task had."""
    return task._terminal_state is None and task._pending_terminal_state_msg is None


@functools.cache
def metrics() -> Any:
    """Return what sends metrics: in a process of the pool nobody else needs it."""
    stats.initialize(
        factory=stats_utils.get_stats_factory(),
        export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
    )
    return stats


def count(task: Any, ending: Ending) -> None:
    """Count a task whose process ended before the task had, with its peak and its worker's limit, in bytes."""
    tags = {"dag_id": task.dag_id, "task_id": task.task_id}
    with contextlib.suppress(Exception):
        metrics().incr("ha_task_killed", tags={**tags, "reason": ending.reason})
        if ending.peak:
            metrics().gauge("ha_task_peak_bytes", ending.peak, tags=tags)
        if ending.limit:
            metrics().gauge("ha_task_limit_bytes", ending.limit, tags=tags)


def update_task_state_if_needed(self: ActivitySubprocess) -> None:
    """Report the state as upstream's does, unless the process could not say how its task ended.

    Raises:
        TaskProcessEndedError: It could not: the scheduler decides.
    """
    run = isolate_task_process.current
    if run is None or not ended_without_a_state(self):
        _update_task_state(self)
        if run and self.final_state in FAILED and run.memory_ran_out():
            self.process_log.warning(
                "While this task ran, the kernel killed a process of its worker for memory. If it was one that this "
                "task had started, that is why the task failed",
                oom_kills=run.oom_kills,
            )
        return
    code = int(self._exit_code or 0)
    ending = Ending(
        code=code,
        peak=run.peak,
        limit=container_memory.memory_limit(),
        memory_ran_out=run.memory_ran_out(),
        ended_for=run.ended_for,
    )
    self.process_log.critical(ending.text)
    count(self.ti, ending)
    raise TaskProcessEndedError(ending.text)


def apply() -> None:
    """Leave a task whose process ended to the scheduler."""
    ActivitySubprocess.update_task_state_if_needed = update_task_state_if_needed
