"""A task whose process was killed has the reason in its log, and its callbacks run.

Problem: if a task process is killed or exits, its supervisor itself reports FAILED or UP_FOR_RETRY. Nothing runs the
task's callbacks or sends its e-mails, and the log only guesses ("Likely out of memory").
Patch: the supervisor reports no state and fails its Celery task. Within seconds the scheduler finds an ended task that
is RUNNING, and handles it like one of a lost worker: retries, callbacks (in the DAG processor) and e-mails. The log
names the cause and the peak memory, as do the metrics `ha_task_killed` and `ha_task_peak_bytes`.
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
    """A task process ended before it reported the task's state."""


def ended_without_a_state(task: ActivitySubprocess) -> bool:
    """Return whether a process ended before it reported the task's state."""
    return task._terminal_state is None and task._pending_terminal_state_msg is None


@functools.cache
def metrics() -> Any:
    """Return the initialised metrics client; a pool process has no other use for it."""
    stats.initialize(
        factory=stats_utils.get_stats_factory(),
        export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
    )
    return stats


def count(task: Any, ending: Ending) -> None:
    """Count a killed task; report its peak memory and its worker's limit, in bytes."""
    tags = {"dag_id": task.dag_id, "task_id": task.task_id}
    with contextlib.suppress(Exception):
        metrics().incr("ha_task_killed", tags={**tags, "reason": ending.reason})
        if ending.peak:
            metrics().gauge("ha_task_peak_bytes", ending.peak, tags=tags)
        if ending.limit:
            metrics().gauge("ha_task_limit_bytes", ending.limit, tags=tags)


def update_task_state_if_needed(self: ActivitySubprocess) -> None:
    """Report the state as upstream does, unless the process ended without one.

    Raises:
        TaskProcessEndedError: The process ended without a state, so the scheduler decides.
    """
    run = isolate_task_process.current
    if run is None or not ended_without_a_state(self):
        _update_task_state(self)
        if run and self.final_state in FAILED and run.memory_ran_out():
            self.process_log.warning(
                "While this task ran, the kernel killed a process of its worker for memory. If this task started that "
                "process, it is the cause of the failure",
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
