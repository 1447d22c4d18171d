"""The task instances that a restored database holds as unfinished, and the rule that settles each.

What a try did after the restored point is unknown: its worker, its message and its process are not restored. So:

- **queued** becomes scheduled, without the id of its message: a scheduler queues it with a new one. Upstream does the
  same with a task that is stuck in queued (`SchedulerJobRunner._reschedule_stuck_task`). No try is lost.
- **running**: the try is lost. The task becomes up_for_retry, or failed if no retry is left, by the function that
  upstream calls for a try without heartbeats (`TaskInstance.handle_failure`).
- **restarting** (cleared while it ran) becomes up_for_retry, also without a retry left: the same function does so.
- **deferred, awaiting_input** stay. Triggers and time-outs of held DAGs stand still until the release (hold.py).
- **scheduled, up_for_retry, up_for_reschedule** stay. Schedulers queue no task of a paused DAG.

The rule applies to all DAGs, also to those that were paused before. Unlike upstream it runs no failure callback and
sends no e-mail: the table that `hold` prints is the notification. Callbacks that the restored past had not run yet are
ended, because they probably ran between the restored point and the loss. Sessions of users end, and pending tests of
connections fail.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, delete, inspect, select, text, update

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

QUEUED: Final = "queued"
LOST: Final = ("running", "restarting")
WAITING: Final = ("deferred", "awaiting_input", "up_for_retry", "up_for_reschedule", "scheduled")
KEY: Final = ("dag_id", "run_id", "task_id", "map_index", "try_number")
EVENT: Final = "settled after a restore"
"""The event in Airflow's audit log; its `extra` has the state before and after."""
REASON: Final = "the database was restored to a time at which this was unfinished"


def settle_tasks(session: Session) -> list[str]:
    """Settle queued and running task instances; return the ids of their messages in Celery.

    Commits after each running task, as upstream's function does. A second call continues.
    """
    from airflow.models.dagbag import DBDagBag
    from airflow.models.log import Log
    from airflow.models.taskinstance import TaskInstance

    dags = DBDagBag(load_op_links=False)
    messages = []
    for task in session.scalars(select(TaskInstance).where(TaskInstance.state.in_((QUEUED, *LOST)))).all():
        if task.external_executor_id:
            messages.append(task.external_executor_id)
        before, key = task.state, task.key
        if before == QUEUED:
            reschedule(task)
        else:
            end_lost_try(task, dags, session)
        change = {"state": str(before), "becomes": str(task.state)}
        session.add(Log(event=EVENT, task_instance=key, extra=json.dumps(change)))
    session.commit()
    return messages


def reschedule(task: Any) -> None:
    """Let a scheduler queue a task with a new message, as upstream does for a task that is stuck in queued."""
    from airflow._shared.timezones import timezone

    task.state = "scheduled"
    task.scheduled_dttm = timezone.utcnow()
    task.queued_dttm = task.queued_by_job_id = task.external_executor_id = None


def end_lost_try(task: Any, dags: Any, session: Session) -> None:
    """End a try as upstream does when its heartbeats stop; without a stored DAG the task fails, as there."""
    dag = dags.get_dag_for_run(dag_run=task.dag_run, session=session)
    if dag is None or not dag.has_task(task.task_id):
        task.set_state("failed", session=session)
        return
    task.task = dag.get_task(task.task_id)
    task.handle_failure(error=REASON, test_mode=False, session=session)


def delete_results(url: str, messages: Collection[str]) -> None:
    """Delete the states of settled messages.

    Args:
        url: `[celery] result_backend` of a scheduler.
        messages: Their ids.
    """
    if messages:
        with create_engine(url.removeprefix("db+")).begin() as connection:
            statement = text("DELETE FROM results.celery_taskmeta WHERE task_id = ANY (:messages)")
            connection.execute(statement, {"messages": list(messages)})


def end_callbacks(session: Session) -> int:
    """End callbacks and tests of connections that have not run; return the number of callbacks."""
    from airflow.models.callback import ACTIVE_STATES, Callback, CallbackType
    from airflow.models.connection_test import ACTIVE_STATES as ACTIVE_TESTS
    from airflow.models.connection_test import ConnectionTestRequest

    requests = session.execute(delete(Callback).where(Callback.type == CallbackType.DAG_PROCESSOR))
    active = Callback.state.in_(ACTIVE_STATES)
    callbacks = session.execute(update(Callback).where(active).values(state="failed", output=REASON, trigger_id=None))
    session.execute(
        update(ConnectionTestRequest)
        .where(ConnectionTestRequest.state.in_(ACTIVE_TESTS))
        .values(state="failed", result_message=REASON, active_connection_id=None)
    )
    return int(requests.rowcount + callbacks.rowcount)  # type: ignore[attr-defined]


def end_sessions(session: Session) -> int:
    """End the sessions of users in the UI; return their number."""
    if not inspect(session.connection()).has_table("session"):
        return 0
    return int(session.execute(text("DELETE FROM session")).rowcount)  # type: ignore[attr-defined]


def settled_tasks(session: Session, restored_at: datetime) -> list[dict[str, Any]]:
    """Return what was settled after the restore to this point, from Airflow's audit log."""
    from airflow.models.log import Log

    columns = [getattr(Log, name) for name in (*KEY, "extra")]
    rows = session.execute(select(*columns).where(Log.event == EVENT, Log.dttm > restored_at).order_by(Log.id))
    return [{**dict(zip(KEY, row, strict=False)), **json.loads(row.extra)} for row in rows]


def waiting_tasks(session: Session, dags: Collection[str]) -> list[dict[str, Any]]:
    """Return the unfinished task instances of these DAGs, which continue after the release."""
    from airflow.models.taskinstance import TaskInstance as Task

    columns = [getattr(Task, name) for name in (*KEY, "state")]
    query = select(*columns).where(Task.dag_id.in_(dags), Task.state.in_(WAITING)).order_by(*columns)
    return [dict(row) for row in session.execute(query).mappings()]
