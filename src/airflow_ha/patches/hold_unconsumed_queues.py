"""Tasks of a queue without a worker, or with busy workers only, stay scheduled and take no slot from other tasks.

Problem: Airflow 3.3.2's scheduler queues a task even if no worker consumes its queue. The task holds a slot of the
executor and its pool, and one more message is published every task_queued_timeout: 40 such tasks took 31 of 32 slots,
and 290 MB of Redis a day.
Patch: select only tasks of queues that a worker consumes. For the queue of a team's own worker service, select only as
many as its workers can use (airflow_ha.queues). Tasks that are already queued return to `scheduled` after
task_queued_timeout, which now also removes their message. Messages of crashed workers are deleted after a day. Held
tasks are counted and logged by queue.
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`.
Upstream issue: none found.
Remove when: the test in `test_hold_unconsumed_queues.py` that names upstream fails.
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
"""Reported queues, those with the most tasks first: DAG authors may use any number of queue names."""
SLOT_STATES: Final = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
"""States in which a task holds a slot."""
MIN_AHEAD: Final = 4
"""Least number of tasks queued beside the running ones (or the number of slots), so that no slot is idle."""
REST_SECONDS: Final = 30.0
"""Seconds without a call after a failed call."""
LOG_SECONDS: Final = 300.0
"""Seconds between two log lines about the same queue."""
EXPIRY_SECONDS: Final = 86400.0
"""Age at which the message of a crashed worker is deleted; workers may not restore it (compose/redis/users.acl)."""
DELETE_SECONDS: Final = 600.0
MAX_DELETED: Final = 1000

watch: Final = Watch(partial(Broker().call, queue_registry.consumed))
broker: Final = Broker()
"""Client of the scheduler's own thread; the thread of `watch` has its own."""

_select: Any = SchedulerJobRunner._executable_task_instances_to_queued
_requeue: Any = SchedulerJobRunner._handle_tasks_stuck_in_queued
_requeue_one: Any = SchedulerJobRunner._maybe_requeue_stuck_ti

_reported: set[str] = set()
_logged: dict[str, float] = {}
_next_removal = [float("-inf")]
"""Monotonic time from which a message may be removed again."""
_next_deletion = [float("-inf")]
_messages: TTLCache[str, dict[str, bytes]] = TTLCache(maxsize=64, ttl=5.0)
"""Messages by queue and Celery id, cached for less than task_queued_timeout, so no stuck message is missing."""


@functools.wraps(_select)
def executable_task_instances_to_queued(self: SchedulerJobRunner, max_tis: int, session: Session) -> Any:
    """Call the upstream method, limited to consumed queues and to the free slots of each own worker service."""
    consumed = watch.consumed()
    if consumed is None:
        return _select(self, max_tis, session=session)
    chosen: list[TaskInstance] = []
    for queue, capacity in queue_capacity(consumed.slots, session).items():
        if (limit := min(capacity, max_tis - len(chosen))) > 0:
            chosen += select_from_queues([queue], self, limit, session)
    if len(chosen) < max_tis:
        chosen += select_from_queues(consumed.queues - consumed.slots.keys(), self, max_tis - len(chosen), session)
    return chosen


def queue_capacity(slots: Mapping[str, int], session: Session) -> dict[str, int]:
    """Return how many more tasks may be queued, by queue, for the queues with scheduled tasks.

    Args:
        slots: Number of slots by queue.
        session: Database session.
    """
    if not slots:
        return {}
    counted = (
        select(TaskInstance.queue, TaskInstance.state, func.count())
        .where(TaskInstance.queue.in_(slots), TaskInstance.state.in_((TaskInstanceState.SCHEDULED, *SLOT_STATES)))
        .group_by(TaskInstance.queue, TaskInstance.state)
    )
    tasks = {(queue, state): number for queue, state, number in session.execute(counted)}
    return {
        queue: number + max(number, MIN_AHEAD) - sum(tasks.get((queue, state), 0) for state in SLOT_STATES)
        for queue, number in slots.items()
        if (queue, TaskInstanceState.SCHEDULED) in tasks
    }


def select_from_queues(queues: Collection[str], runner: SchedulerJobRunner, max_tis: int, session: Session) -> Any:
    """Return upstream's selection of tasks, limited to some queues.

    The condition is part of the query, before its LIMIT, so that a thousand held tasks hide no other. The same
    statements count tasks in other states against limits, so the condition keeps these tasks.
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
    """Call the upstream method, then report the held tasks."""
    _requeue(self, *arguments, **named)
    try:
        consumed = watch.consumed()
        with create_session() as session:
            report({} if consumed is None else unconsumed_tasks(consumed.queues, session))
    except Exception:
        log.warning("cannot report the tasks of queues without a worker", exc_info=True)
    if watch.is_reading and time.monotonic() > _next_deletion[0]:
        _next_deletion[0] = time.monotonic() + DELETE_SECONDS
        try:
            broker.call(delete_expired)
        except Exception as error:
            log.warning("cannot delete the messages of crashed workers: %s", error)


def unconsumed_tasks(consumed: Collection[str], session: Session) -> dict[str, int]:
    """Return the number of waiting tasks by queue, for the queues without a consumer."""
    tasks = func.count().label("tasks")
    statement = (
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
    return dict(session.execute(statement).tuples().all())


def report(tasks: Mapping[str, int]) -> None:
    """Send the gauge of each queue, 0 for a queue that has no more tasks, and log it every LOG_SECONDS."""
    for queue in _reported - tasks.keys():
        stats.gauge(METRIC, 0, tags={"queue": metric_tag(queue)})
        log.info("no more task waits for a worker of the queue %r", queue)
        _logged.pop(queue, None)
    for queue, number in tasks.items():
        stats.gauge(METRIC, number, tags={"queue": metric_tag(queue)})
        if time.monotonic() - _logged.get(queue, float("-inf")) > LOG_SECONDS:
            log.warning("%d task(s) wait for the queue %r, which no worker consumes", number, queue)
            _logged[queue] = time.monotonic()
    _reported.clear()
    _reported.update(tasks)


def metric_tag(queue: str) -> str:
    """Return a queue name as a metric tag: Airflow drops tags with a comma or an equals sign."""
    return queue.replace(",", "_").replace("=", "_")


@functools.wraps(_requeue_one)
def maybe_requeue_stuck_ti(self: SchedulerJobRunner, *, ti: TaskInstance, session: Session, executor: Any) -> None:
    """Remove the message that no worker took, then call the upstream method.

    Upstream revokes the message only at the current workers, not at workers that start later.
    """
    # One call takes up to 6 s during a Redis outage, and a scheduler that blocks for 20 s counts as dead.
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
        _messages[queue] = {json.loads(message)["headers"]["id"]: message for message in client.lrange(queue, 0, -1)}
    if message := _messages[queue].pop(celery_id, None):
        client.lrem(queue, 1, message)


def delete_expired(client: Any) -> None:
    """Delete the oldest messages that no worker has acknowledged."""
    oldest = time.time() - EXPIRY_SECONDS
    if tags := client.zrangebyscore("unacked_index", "-inf", oldest, start=0, num=MAX_DELETED):
        client.hdel("unacked", *tags)
        client.zrem("unacked_index", *tags)
        log.info("deleted %d message(s) of workers that crashed a day ago", len(tags))


def apply() -> None:
    """Hold the tasks of queues without a worker."""
    SchedulerJobRunner._executable_task_instances_to_queued = executable_task_instances_to_queued
    SchedulerJobRunner._handle_tasks_stuck_in_queued = handle_tasks_stuck_in_queued
    SchedulerJobRunner._maybe_requeue_stuck_ti = maybe_requeue_stuck_ti
