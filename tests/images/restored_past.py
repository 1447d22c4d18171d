"""Write the state of Airflow at the restored point into the database that the environment names.

A migrated database has the DAGs of DAGS, and one run of `work` in which each task is in the state of its name.
"""

from __future__ import annotations

import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.unit.patches.dag_database import create_run, store_dags

NOW = datetime.now(UTC).replace(microsecond=0)
RESTORED_AT = NOW - timedelta(days=3)
MESSAGE = "message-of-{}"

DAGS = """
from datetime import datetime, timedelta, timezone
from airflow.sdk import DAG, Asset, BaseOperator

class Work(BaseOperator):
    def execute(self, context): ...

def dag(dag_id, paused=False, **arguments):
    with DAG(dag_id, is_paused_upon_creation=paused, **arguments) as made:
        Work(task_id="only")
    return made

start = datetime.now(timezone.utc) - timedelta(days=9)
with DAG("work", schedule=None, is_paused_upon_creation=False):
    for state in ("queued", "running", "restarting", "deferred", "awaiting_input", "up_for_retry", "scheduled"):
        Work(task_id=state, retries=1)
    Work(task_id="no_retry_left")
daily = dag("daily", schedule="@daily", start_date=start, catchup=False)
replayed = dag("replayed", schedule="@daily", start_date=start, catchup=True)
consumer = dag("consumer", schedule=[Asset("table")])
canary = dag("canary", schedule="@daily", start_date=start, catchup=False)
asleep = dag("asleep", paused=True, schedule="@daily", start_date=start, catchup=True)
"""


def main() -> None:
    from airflow.utils.session import create_session

    with tempfile.TemporaryDirectory() as folder:
        store_dags(DAGS, Path(folder))
    create_run("work", "the-run")
    with create_session() as session:
        set_states(session, create_trigger(session))
        create_callbacks(session)
        create_unfinished_run(session)
        for dag_id in ("daily", "replayed"):
            create_last_run(session, dag_id)
        create_secrets(session)


def create_trigger(session: Any) -> int:
    """A trigger of a task, whose id is returned, and one that watches an asset."""
    from airflow.models.asset import AssetModel, AssetWatcherModel
    from airflow.models.trigger import Trigger
    from sqlalchemy import select

    of_task = Trigger(classpath="of a task", kwargs={"a": 1}, queue="own")
    of_asset = Trigger(classpath="of an asset", kwargs={})
    session.add_all([of_task, of_asset])
    session.flush()
    asset = session.scalar(select(AssetModel.id))
    session.add(AssetWatcherModel(name="watcher", asset_id=asset, trigger_id=of_asset.id))
    return of_task.id


def set_states(session: Any, trigger: int) -> None:
    from airflow.jobs.job import Job
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    scheduler = Job(job_type="SchedulerJob", state="running", latest_heartbeat=RESTORED_AT)
    session.add(scheduler)
    session.flush()
    for task in session.scalars(select(TaskInstance)):
        task.dag_run.last_scheduling_decision = RESTORED_AT
        task.dag_run.start_date = RESTORED_AT - timedelta(minutes=1)
        task.state = {"no_retry_left": "running"}.get(task.task_id, task.task_id)
        task.try_number = 1
        task.start_date = RESTORED_AT - timedelta(minutes=1)
        task.queued_by_job_id = scheduler.id
        task.external_executor_id = MESSAGE.format(task.task_id)
        if task.state in ("deferred", "awaiting_input"):
            task.trigger_timeout = RESTORED_AT + timedelta(hours=1)
        if task.state == "deferred":
            task.trigger_id = trigger


def create_callbacks(session: Any) -> None:
    """A deadline of the run, a callback that was not run, and one request to the DAG processor."""
    from airflow.models.callback import Callback
    from airflow.models.dagrun import DagRun
    from sqlalchemy import insert, select, text

    pending, request, planned = (uuid.uuid4() for _ in range(3))
    common = {"fetch_method": "import_path", "data": {}, "priority_weight": 1, "created_at": RESTORED_AT}
    session.execute(
        insert(Callback.__table__),
        [
            {"id": pending, "type": "executor", "state": "pending", **common},
            {"id": request, "type": "dag_processor", "state": None, **common},
            {"id": planned, "type": "executor", "state": "scheduled", **common},
        ],
    )
    run = session.scalar(select(DagRun.id))
    values = {"id": uuid.uuid4(), "run": run, "due": RESTORED_AT + timedelta(hours=1), "callback": planned}
    session.execute(
        text("INSERT INTO deadline VALUES (:id, now(), now(), :run, :due, false, :callback, NULL)"),
        values,
    )


def create_unfinished_run(session: Any) -> None:
    """A run of a DAG that is not held."""
    run = session.merge(create_run("canary", "unfinished"))
    run.start_date = RESTORED_AT - timedelta(minutes=1)


def create_last_run(session: Any, dag_id: str) -> None:
    """The scheduled run of the midnight before the restored point."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.timetables.base import DataInterval
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    midnight = RESTORED_AT.replace(hour=0, minute=0, second=0)
    SerializedDagModel.get_dag(dag_id, session=session).create_dagrun(
        run_id=f"scheduled__{midnight.isoformat()}",
        logical_date=midnight,
        data_interval=DataInterval.exact(midnight),
        run_after=midnight,
        run_type=DagRunType.SCHEDULED,
        triggered_by=DagRunTriggeredByType.TIMETABLE,
        state="success",
        session=session,
    )


def create_secrets(session: Any) -> None:
    from airflow.models.connection import Connection
    from airflow.models.variable import Variable

    session.add(Connection(conn_id="shop", conn_type="http", password="secret", extra='{"a": 1}'))
    Variable.set("answer", "42", session=session)


if __name__ == "__main__":
    main()
