"""A scheduler selects no task of a queue without a worker, and these tasks stand in nobody's way."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.unit.patches.loading import applied

DAG = """
from datetime import UTC, datetime

from airflow.sdk import DAG, task

with DAG("held", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, max_active_tasks=50):
    @task(queue="gpu", priority_weight=100)
    def train(n): ...
    @task
    def other(): ...
    train.expand(n=list(range(30)))
    other()
"""


@pytest.fixture(scope="module")
def upstream():
    """The patch, as in a scheduler."""
    with applied("hold_unconsumed_queues") as module:
        yield module


@pytest.fixture(scope="module")
def run_id(upstream, tmp_path_factory):
    """A run of 30 tasks for `gpu`, which come first, and one for the default queue."""
    from airflow._shared.timezones import timezone
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.db import initdb
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    initdb()
    folder = tmp_path_factory.mktemp("dags")
    (folder / "held.py").write_text(DAG)
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(dag_folder=folder), "dags-folder", None)
    dag = SerializedDagModel.get_dag("held")
    run = dag.create_dagrun(
        run_id="held",
        run_after=timezone.utcnow(),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="running",
    )
    return run.run_id


@pytest.fixture
def scheduler(upstream, run_id, monkeypatch):
    """A scheduler, and how many tasks it would queue, by their queue."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dag import DagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_ha.queues.queue_registry import Consumed

    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == "held").values(is_paused=False))
        states = update(TaskInstance).where(TaskInstance.dag_id == "held")
        session.execute(states.values(state="scheduled"))
        session.execute(update(TaskInstance).where(TaskInstance.dag_id != "held").values(state="success"))
    runner = SchedulerJobRunner(Job())

    def select(consumed, *, max_tis=8, slots=None, running=0, select=upstream.executable_task_instances_to_queued):
        view = None if consumed is None else Consumed(frozenset(consumed), slots or {})
        monkeypatch.setattr(upstream.watch, "consumed", lambda: view)
        with create_session() as session:
            taken = (TaskInstance.queue == "gpu") & (TaskInstance.map_index < running)
            session.execute(update(TaskInstance).where(TaskInstance.dag_id == "held", taken).values(state="running"))
            chosen = select(runner, max_tis, session=session)
            queues = [ti.queue for ti in chosen]
            session.rollback()
        return {queue: queues.count(queue) for queue in queues}

    return select


def test_tasks_of_a_queue_without_a_worker_hide_no_other(scheduler):
    assert scheduler({"default"}) == {"default": 1}


def test_tasks_are_selected_when_their_queue_is_consumed(scheduler):
    assert scheduler({"default", "gpu"}) == {"gpu": 8}
    assert scheduler({"gpu"}, max_tis=31) == {"gpu": 30}


def test_nothing_is_selected_while_no_queue_is_consumed(scheduler):
    assert scheduler(set()) == {}


def test_everything_is_selected_while_nothing_is_known(scheduler):
    assert scheduler(None) == {"gpu": 8}


@pytest.mark.parametrize(
    ("slots", "running", "selected"),
    [(1, 0, 5), (2, 0, 6), (2, 2, 4), (2, 6, 0), (2, 20, 0), (8, 0, 16), (8, 10, 6), (30, 0, 29)],
)
def test_an_own_queue_gets_what_its_workers_can_use(scheduler, slots, running, selected):
    """In a scheduler with 30 free slots, of which one is left for the task of the default queue that comes last."""
    expected = {"default": 1} | ({"gpu": selected} if selected else {})
    if slots == 30:
        expected = {"gpu": 30}
    assert scheduler({"default", "gpu"}, slots={"gpu": slots}, running=running, max_tis=30) == expected


def test_upstream_selects_tasks_of_a_queue_without_a_worker(scheduler, upstream):
    """When this fails, Airflow has fixed it: delete airflow_ha.patches.hold_unconsumed_queues and this file."""
    assert scheduler({"default"}, select=upstream._select) == {"gpu": 8}


def test_what_is_held_back_is_counted_by_its_queue(scheduler, upstream):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        assert upstream.waiting({"default"}, session) == {"gpu": 30}
        assert upstream.waiting({"default", "gpu"}, session) == {}
        assert upstream.waiting(set(), session) == {"gpu": 30, "default": 1}
        session.execute(update(DagModel).where(DagModel.dag_id == "held").values(is_paused=True))
        assert upstream.waiting({"default"}, session) == {}
        session.rollback()


def test_a_queue_is_reported_once_more_when_nothing_waits_for_it(upstream, monkeypatch):
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(upstream.stats, "gauge", lambda name, value, tags: sent.append((tags["queue"], value)))
    upstream.report({"gpu": 3, "a,b=c": 1})
    upstream.report({"gpu": 2})
    upstream.report({})
    upstream.report({})
    assert sent == [("gpu", 3), ("a_b_c", 1), ("a_b_c", 0), ("gpu", 2), ("gpu", 0)]


def test_a_message_that_is_withdrawn_is_removed_from_redis(upstream):
    raws = [json.dumps({"headers": {"id": name}, "body": "x"}).encode() for name in ("one", "two", "three")]
    redis = SimpleNamespace(
        lrange=lambda queue, first, last: list(raws) if queue == "gpu" else [],
        lrem=lambda queue, count, raw: raws.remove(raw),
    )
    upstream._messages.clear()
    for name in ("two", "never there", "one"):
        upstream.remove_message("gpu", name, redis)
    assert [json.loads(raw)["headers"]["id"] for raw in raws] == ["three"]


def test_a_redis_that_does_not_answer_is_asked_once_for_many_messages(upstream, monkeypatch):
    asked: list[object] = []
    requeued: list[str] = []

    def refuse(use):
        asked.append(use)
        raise TimeoutError

    monkeypatch.setattr(upstream, "broker", SimpleNamespace(call=refuse))
    monkeypatch.setattr(upstream, "_next_removal", [float("-inf")])
    monkeypatch.setattr(upstream, "_requeue_one", lambda runner, *, ti, session, executor: requeued.append(ti.key))
    for key in "abc":
        ti = SimpleNamespace(key=key, queue="gpu", external_executor_id=key)
        upstream.maybe_requeue_stuck_ti(None, ti=ti, session=None, executor=None)
    assert (len(asked), requeued) == (1, ["a", "b", "c"])
