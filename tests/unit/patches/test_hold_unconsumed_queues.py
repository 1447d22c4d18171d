"""A scheduler selects no task of a queue without a worker, and these tasks do not delay others."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.unit.patches.dag_database import create_run, store_dags
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
    """The patch, applied as in a scheduler."""
    with applied("hold_unconsumed_queues") as module:
        yield module


@pytest.fixture(scope="module")
def run_id(upstream, tmp_path_factory):
    """A run of 30 tasks for `gpu`, which have the higher priority, and one task for the default queue."""
    store_dags(DAG, tmp_path_factory.mktemp("dags"))
    return create_run("held", "held").run_id


@pytest.fixture
def scheduler(upstream, run_id, monkeypatch):
    """Return a function that selects tasks and returns their number by queue."""
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
        snapshot = None if consumed is None else Consumed(frozenset(consumed), slots or {})
        monkeypatch.setattr(upstream.watch, "consumed", lambda: snapshot)
        with create_session() as session:
            running_tasks = (TaskInstance.queue == "gpu") & (TaskInstance.map_index < running)
            session.execute(
                update(TaskInstance).where(TaskInstance.dag_id == "held", running_tasks).values(state="running")
            )
            chosen = select(runner, max_tis, session=session)
            queues = [ti.queue for ti in chosen]
            session.rollback()
        return {queue: queues.count(queue) for queue in queues}

    return select


def test_held_tasks_do_not_hide_other_tasks(scheduler):
    assert scheduler({"default"}) == {"default": 1}


def test_task_of_a_consumed_queue_is_selected(scheduler):
    assert scheduler({"default", "gpu"}) == {"gpu": 8}
    assert scheduler({"gpu"}, max_tis=31) == {"gpu": 30}


def test_no_consumed_queue_selects_no_task(scheduler):
    assert scheduler(set()) == {}


def test_unknown_consumers_select_every_task(scheduler):
    assert scheduler(None) == {"gpu": 8}


@pytest.mark.parametrize(
    ("slots", "running", "selected"),
    [(1, 0, 5), (2, 0, 6), (2, 2, 4), (2, 6, 0), (2, 20, 0), (8, 0, 16), (8, 10, 6), (30, 0, 29)],
)
def test_own_queue_gets_as_many_tasks_as_it_can_use(scheduler, slots, running, selected):
    """30 slots are free; the lower-priority task of the default queue takes one."""
    expected = {"default": 1} | ({"gpu": selected} if selected else {})
    if slots == 30:
        expected = {"gpu": 30}
    assert scheduler({"default", "gpu"}, slots={"gpu": slots}, running=running, max_tis=30) == expected


def test_upstream_selects_tasks_of_a_queue_without_a_worker(scheduler, upstream):
    """If this fails, upstream is fixed: delete airflow_ha.patches.hold_unconsumed_queues and this file."""
    assert scheduler({"default"}, select=upstream._select) == {"gpu": 8}


def test_held_tasks_are_counted_by_queue(scheduler, upstream):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        assert upstream.unconsumed_tasks({"default"}, session) == {"gpu": 30}
        assert upstream.unconsumed_tasks({"default", "gpu"}, session) == {}
        assert upstream.unconsumed_tasks(set(), session) == {"gpu": 30, "default": 1}
        session.execute(update(DagModel).where(DagModel.dag_id == "held").values(is_paused=True))
        assert upstream.unconsumed_tasks({"default"}, session) == {}
        session.rollback()


def test_empty_queue_is_reported_once_with_zero(upstream, monkeypatch):
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(upstream.stats, "gauge", lambda name, value, tags: sent.append((tags["queue"], value)))
    upstream.report({"gpu": 3, "a,b=c": 1})
    upstream.report({"gpu": 2})
    upstream.report({})
    upstream.report({})
    assert sent == [("gpu", 3), ("a_b_c", 1), ("a_b_c", 0), ("gpu", 2), ("gpu", 0)]


def test_message_of_a_requeued_task_is_removed_from_redis(upstream):
    messages = [json.dumps({"headers": {"id": name}, "body": "x"}).encode() for name in ("one", "two", "three")]
    redis = SimpleNamespace(
        lrange=lambda queue, first, last: list(messages) if queue == "gpu" else [],
        lrem=lambda queue, count, raw: messages.remove(raw),
    )
    upstream._messages.clear()
    for name in ("two", "missing", "one"):
        upstream.remove_message("gpu", name, redis)
    assert [json.loads(raw)["headers"]["id"] for raw in messages] == ["three"]


def test_expired_messages_are_deleted_from_redis(upstream):
    now = upstream.time.time()
    index = {b"new": now - 3600, b"old": now - 90000}
    unacked = dict.fromkeys(index, b"message")
    redis = SimpleNamespace(
        zrangebyscore=lambda _key, _least, most, **_: [tag for tag, at in index.items() if at <= most],
        hdel=lambda _key, *tags: [unacked.pop(tag) for tag in tags],
        zrem=lambda _key, *tags: [index.pop(tag) for tag in tags],
    )
    for _ in range(2):
        upstream.delete_expired(redis)
    assert list(index) == list(unacked) == [b"new"]


def test_redis_outage_is_met_once_for_many_messages(upstream, monkeypatch):
    calls: list[object] = []
    requeued: list[str] = []

    def refuse(use):
        calls.append(use)
        raise TimeoutError

    monkeypatch.setattr(upstream, "broker", SimpleNamespace(call=refuse))
    monkeypatch.setattr(upstream, "_next_removal", [float("-inf")])
    monkeypatch.setattr(upstream, "_requeue_one", lambda runner, *, ti, session, executor: requeued.append(ti.key))
    for key in "abc":
        ti = SimpleNamespace(key=key, queue="gpu", external_executor_id=key)
        upstream.maybe_requeue_stuck_ti(None, ti=ti, session=None, executor=None)
    assert (len(calls), requeued) == (1, ["a", "b", "c"])
