"""A task for a queue without a worker, or with one that is full, stays scheduled and takes no slot from others.

Problem: Airflow 3.3.2's scheduler queues a task whether or not a worker consumes its queue. It holds a slot of the
executor and its pool, and every task_queued_timeout one more message is published for it: 40 such tasks took 31 of 32
slots, and 290 MB of Redis a day.
Patch: the scheduler selects only tasks of queues that a worker consumes, and of an own worker service's queue only so
many as its workers can use (airflow_ha.queues). Tasks that were queued before return to `scheduled` by
task_queued_timeout, which now removes their message. What is held back is counted and logged by its queue.
Applies to: airflow.jobs.scheduler_job_runner 3.3.2.
Upstream issue: none found that asks for it.
Remove when: the test in test_hold_unconsumed_queues.py that names upstream fails.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.observability import stats
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from cachetools import TTLCache
from sqlalchemy import event, func, or_, select
from sqlalchemy.orm import with_loader_criteria

from airflow_ha.queues import queue_registry
from airflow_ha.queues.broker import Broker
from airflow_ha.queues.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.orm import ORMExecuteState, Session

log = logging.getLogger(__name__)

METRIC: Final = "ha_unconsumed_queue_tasks"
MAX_QUEUES: Final = 20
"""Queues that are reported, those with the most tasks first: a DAG's author may make up as many names as they like."""
HOLDING: Final = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
"""The states in which a task takes a slot."""
MIN_AHEAD: Final = 4
"""Tasks that are queued beside those that run, or as many as there are slots: so that no slot waits for a scheduler."""
REST_SECONDS: Final = 30.0
"""Seconds without a call after one that failed."""
LOG_SECONDS: Final = 300.0
"""Seconds between two log lines about the same queue."""

watch: Final = Watch(partial(Broker().call, queue_registry.consumed))
broker: Final = Broker()
"""For the scheduler's own thread; the other belongs to the thread of `watch`."""

_select: Any = SchedulerJobRunner._executable_task_instances_to_queued
_requeue: Any = SchedulerJobRunner._handle_tasks_stuck_in_queued
_requeue_one: Any = SchedulerJobRunner._maybe_requeue_stuck_ti

_reported: set[str] = set()
_logged: dict[str, float] = {}
_next_removal = [float("-inf")]
"""When, by the monotonic clock, a message may be removed again."""
_messages: TTLCache[str, dict[str, bytes]] = TTLCache(maxsize=64, ttl=5.0)
"""By queue and Celery's id; shorter than task_queued_timeout, so a message that is stuck is never newer than this."""


@functools.wraps(_select)
def executable_task_instances_to_queued(self: SchedulerJobRunner, max_tis: int, session: Session) -> Any:
    """Upstream's, without the tasks of queues that nobody consumes, and with few of a queue that has few slots."""
    consumed = watch.consumed()
    if consumed is None:
        return _select(self, max_tis, session=session)
    chosen: list[TaskInstance] = []
    for queue, room in rooms(consumed.slots, session).items():
        if (most := min(room, max_tis - len(chosen))) > 0:
            chosen += select_of([queue], self, most, session)
    if len(chosen) < max_tis:
        chosen += select_of(consumed.queues - consumed.slots.keys(), self, max_tis - len(chosen), session)
    return chosen


def rooms(slots: Mapping[str, int], session: Session) -> dict[str, int]:
    """Return how many more tasks may be queued of each queue, of those that have tasks to be queued.

    Args:
        slots: of each queue.
        session: with which the database is asked.
    """
    if not slots:
        return {}
    counted = (
        select(TaskInstance.queue, TaskInstance.state, func.count())
        .where(TaskInstance.queue.in_(slots), TaskInstance.state.in_((TaskInstanceState.SCHEDULED, *HOLDING)))
        .group_by(TaskInstance.queue, TaskInstance.state)
    )
    tasks = {(queue, state): number for queue, state, number in session.execute(counted)}
    return {
        queue: number + max(number, MIN_AHEAD) - sum(tasks.get((queue, state), 0) for state in HOLDING)
        for queue, number in slots.items()
        if (queue, TaskInstanceState.SCHEDULED) in tasks
    }


def select_of(queues: Collection[str], runner: SchedulerJobRunner, max_tis: int, session: Session) -> Any:
    """Return upstream's selection of tasks of these queues.

    In the query, before its LIMIT: a thousand tasks that are held back hide nobody. Tasks in other states are counted
    against limits by the same statements, and stay as they are.
    """
    selectable = or_(TaskInstance.state != TaskInstanceState.SCHEDULED, TaskInstance.queue.in_(queues))
    option = with_loader_criteria(TaskInstance, selectable, propagate_to_loaders=False)

    def add_criteria(statement: ORMExecuteState) -> None:
        if statement.is_select and not statement.is_column_load and not statement.is_relationship_load:
            statement.statement = statement.statement.options(option)

    event.listen(session, "do_orm_execute", add_criteria)
    try:
        return _select(runner, max_tis, session=session)
    finally:
        event.remove(session, "do_orm_execute", add_criteria)


@functools.wraps(_requeue)
def handle_tasks_stuck_in_queued(self: SchedulerJobRunner, *arguments: Any, **named: Any) -> None:
    """Upstream's; then reports what is held back."""
    _requeue(self, *arguments, **named)
    try:
        consumed = watch.consumed()
        with create_session() as session:
            report({} if consumed is None else waiting(consumed.queues, session))
    except Exception:
        log.warning("cannot report the tasks of queues without a worker", exc_info=True)


def waiting(consumed: Collection[str], session: Session) -> dict[str, int]:
    """Return how many tasks wait for each queue that nobody consumes."""
    tasks = func.count().label("tasks")
    found = (
        select(TaskInstance.queue, tasks)
        .join(DagRun, (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id))
        .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
        .where(
            TaskInstance.state.in_((TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED)),
            TaskInstance.queue.not_in(consumed),
            DagRun.state == DagRunState.RUNNING,
            ~DagModel.is_paused,
        )
        .group_by(TaskInstance.queue)
        .order_by(tasks.desc())
        .limit(MAX_QUEUES)
    )
    return dict(session.execute(found).tuples().all())


def report(tasks: Mapping[str, int]) -> None:
    """Send the number of each queue, 0 for one that was reported before and has none, and log it now and then."""
    for queue in _reported - tasks.keys():
        stats.gauge(METRIC, 0, tags={"queue": tag(queue)})
        log.info("No task waits for a worker of the queue %r any more", queue)
        _logged.pop(queue, None)
    for queue, number in tasks.items():
        stats.gauge(METRIC, number, tags={"queue": tag(queue)})
        if time.monotonic() - _logged.get(queue, float("-inf")) > LOG_SECONDS:
            log.warning("%d task(s) wait for the queue %r, which no worker consumes", number, queue)
            _logged[queue] = time.monotonic()
    _reported.clear()
    _reported.update(tasks)


def tag(queue: str) -> str:
    """Return the name as a metric's tag: Airflow leaves out a tag with a comma or an equals sign."""
    return queue.replace(",", "_").replace("=", "_")


@functools.wraps(_requeue_one)
def maybe_requeue_stuck_ti(self: SchedulerJobRunner, *, ti: TaskInstance, session: Session, executor: Any) -> None:
    """Upstream's, after the message that no worker took is removed.

    Upstream has asked the workers of now to skip it; those that come later were not asked.
    """
    # One call takes up to 6 s while Redis does not answer, and a scheduler that stands still for 20 s counts as dead.
    if ti.external_executor_id and watch.is_reading and time.monotonic() > _next_removal[0]:
        try:
            broker.call(partial(remove_message, ti.queue, ti.external_executor_id))
        except Exception as error:
            _next_removal[0] = time.monotonic() + REST_SECONDS
            log.warning("cannot remove the message of %s from its queue: %s", ti.key, error)
    _requeue_one(self, ti=ti, session=session, executor=executor)


def remove_message(queue: str, celery_id: str, client: Any) -> None:
    """Remove a task's message from its queue in Redis, if it is still there."""
    if queue not in _messages:
        _messages[queue] = {json.loads(raw)["headers"]["id"]: raw for raw in client.lrange(queue, 0, -1)}
    if raw := _messages[queue].pop(celery_id, None):
        client.lrem(queue, 1, raw)


def apply() -> None:
    """Hold back tasks of queues without a worker."""
    SchedulerJobRunner._executable_task_instances_to_queued = executable_task_instances_to_queued
    SchedulerJobRunner._handle_tasks_stuck_in_queued = handle_tasks_stuck_in_queued
    SchedulerJobRunner._maybe_requeue_stuck_ti = maybe_requeue_stuck_ti
