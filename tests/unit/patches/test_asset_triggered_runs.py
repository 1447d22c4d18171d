"""A run takes every asset event of its DAG that no run of the DAG has taken."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.patches.dag_database import store_dags
from tests.unit.patches.loading import applied

DAG = """
from datetime import UTC, datetime

from airflow.sdk import DAG, Asset, task

a, b = (Asset(name=name, uri=f"x-tests://{name}") for name in "ab")
for name, schedule in {"one": [a], "both": a & b, "either": a | b}.items():
    with DAG(name, start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=schedule, catchup=False):
        task(task_id="see")(lambda: None)()
"""


@pytest.fixture(scope="module")
def patch():
    """The patch, applied as in a scheduler."""
    with applied("asset_triggered_runs") as module:
        yield module


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """The ids of both assets, by name."""
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    store_dags(DAG, tmp_path_factory.mktemp("dags"))
    with create_session() as session:
        return {asset.name: asset.id for asset in session.scalars(select(AssetModel))}


class Queue:
    """Assets and their consumers, with times in minutes."""

    def __init__(self, assets) -> None:
        from airflow._shared.timezones import timezone

        self.assets = assets
        self.start = timezone.utcnow()

    def event(self, asset: str, minute: float) -> int:
        """Register an event and return its id."""
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session

        with create_session() as session:
            event = AssetEvent(asset_id=self.assets[asset], timestamp=self.start + timedelta(minutes=minute))
            session.add(event)
            session.flush()
            return event.id

    def row(self, dag: str, asset: str, minute: float) -> None:
        """Queue an asset for a consumer."""
        from airflow.models.asset import AssetDagRunQueue
        from airflow.utils.session import create_session

        at = self.start + timedelta(minutes=minute)
        with create_session() as session:
            session.add(AssetDagRunQueue(asset_id=self.assets[asset], target_dag_id=dag, created_at=at))

    def rows(self, dag: str) -> int:
        from airflow.models.asset import AssetDagRunQueue
        from airflow.utils.session import create_session
        from sqlalchemy import func, select

        with create_session() as session:
            return session.scalar(select(func.count()).where(AssetDagRunQueue.target_dag_id == dag))

    def create(self, dag: str, create=None) -> list[list[int]]:
        """Create the next run, and return the events of each run of the consumer."""
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        create = create or SchedulerJobRunner._create_dag_runs_asset_triggered
        with create_session() as session:
            create(SchedulerJobRunner(Job()), dag_models=[session.get(DagModel, dag)], session=session)
        with create_session() as session:
            runs = session.scalars(select(DagRun).where(DagRun.dag_id == dag).order_by(DagRun.id))
            return [sorted(event.id for event in run.consumed_asset_events) for run in runs]


@pytest.fixture
def queue(assets, patch):
    from airflow.models.asset import AssetDagRunQueue, AssetEvent
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        for model in (DagRun, AssetEvent, AssetDagRunQueue):
            session.execute(delete(model))
    return Queue(assets)


def test_later_events_are_in_the_same_run(queue):
    events = [queue.event("a", minute) for minute in (1, 2, 3)]
    queue.row("one", "a", 1)
    assert queue.create("one") == [events]
    assert queue.rows("one") == 0


def test_event_that_is_committed_late_is_in_the_next_run(queue):
    first = queue.event("a", 3)
    queue.row("one", "a", 3)
    queue.create("one")
    late = queue.event("a", 2)
    queue.row("one", "a", 4)
    assert queue.create("one") == [[first], [late]]


def test_each_event_is_consumed_once(queue):
    taken = []
    for minute in (1, 2, 3):
        taken.append([queue.event("a", minute)])
        queue.row("one", "a", minute)
        assert queue.create("one") == taken


def test_queue_row_without_new_events_creates_no_run(queue):
    event = queue.event("a", 1)
    queue.row("one", "a", 1)
    queue.create("one")
    queue.row("one", "a", 2)
    assert queue.create("one") == [[event]]
    assert queue.rows("one") == 0


def test_condition_counts_the_remaining_queue_rows(queue):
    events = [queue.event("a", 1)]
    queue.row("both", "a", 1)
    assert queue.create("both") == []
    assert queue.rows("both") == 1
    events.append(queue.event("b", 2))
    queue.row("both", "b", 2)
    assert queue.create("both") == [events]


def test_events_of_either_asset_are_in_one_run(queue):
    events = [queue.event("a", 1), queue.event("b", 2)]
    queue.row("either", "a", 1)
    queue.row("either", "b", 2)
    assert queue.create("either") == [events]


def test_event_before_the_dag_was_a_consumer_is_ignored(queue):
    queue.event("a", -60)
    event = queue.event("a", 1)
    queue.row("one", "a", 1)
    assert queue.create("one") == [[event]]


def test_upstream_leaves_later_events_without_a_run(queue, patch):
    """If this fails, upstream takes all queued events: delete asset_triggered_runs.py."""
    first, _ = queue.event("a", 1), queue.event("a", 2)
    queue.row("one", "a", 1)
    assert queue.create("one", patch._create) == [[first]]
    assert queue.rows("one") == 0
