"""The executor drops tasks that are neither queued nor running in the database."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.unit.patches.loading import applied


@pytest.fixture(scope="module")
def upstream():
    """The patch, applied as in a scheduler."""
    with applied("release_leaked_slots") as module:
        yield module


class Scheduler:
    """An executor with three tasks, and their rows in the database."""

    def __init__(self, upstream, monkeypatch) -> None:
        from airflow.models.taskinstancekey import TaskInstanceKey
        from airflow.providers.celery.executors.celery_executor import CeleryExecutor

        self.upstream = upstream
        self.now = 0.0
        monkeypatch.setattr(upstream.time, "monotonic", lambda: self.now)
        upstream._missing_since.clear()
        self.executor = CeleryExecutor()
        self.keys = [TaskInstanceKey("d", name, "r") for name in "abc"]
        self.callback = SimpleNamespace(id="a callback's key")
        for key in self.keys:
            self.executor.running.add(key)
            self.executor.workloads[key] = SimpleNamespace(task_id=f"message-{key.task_id}")
        self.rows = [(*key, f"message-{key.task_id}") for key in self.keys]

    def check(self, after: float) -> set[str]:
        """Return the tasks that the executor holds after another check, some seconds later."""
        self.now += after
        session = SimpleNamespace(execute=lambda statement: list(self.rows))
        self.upstream.drop_leaked(self.executor, session)
        assert {key.task_id for key in self.executor.workloads} == {key.task_id for key in self.executor.running}
        return {key.task_id for key in self.executor.running}


@pytest.fixture
def scheduler(upstream, monkeypatch):
    return Scheduler(upstream, monkeypatch)


def test_task_in_the_database_is_kept(scheduler):
    assert [scheduler.check(10) for _ in range(5)] == [{"a", "b", "c"}] * 5


def test_missing_task_is_dropped_within_a_minute(scheduler):
    del scheduler.rows[0]
    assert scheduler.check(0) == {"a", "b", "c"}
    assert scheduler.check(19) == {"a", "b", "c"}
    assert scheduler.check(1) == {"b", "c"}


def test_task_that_is_requeued_meanwhile_is_kept(scheduler):
    row = scheduler.rows.pop(0)
    scheduler.check(10)
    scheduler.rows.append(row)
    scheduler.check(10)
    del scheduler.rows[-1]
    assert [scheduler.check(10), scheduler.check(10)] == [{"a", "b", "c"}] * 2
    assert scheduler.check(10) == {"b", "c"}


def test_task_with_a_replaced_message_is_dropped(scheduler):
    scheduler.rows[0] = (*scheduler.keys[0], "another message")
    scheduler.check(0)
    assert scheduler.check(20) == {"b", "c"}


def test_other_try_of_a_task_does_not_keep_the_slot(scheduler):
    scheduler.rows[0] = (*scheduler.keys[0]._replace(try_number=2), "another message")
    scheduler.check(0)
    assert scheduler.check(20) == {"b", "c"}


def test_unpublished_task_is_dropped_too(scheduler):
    key = scheduler.keys[0]._replace(task_id="d")
    scheduler.executor.queued_tasks[key] = object()
    scheduler.executor.workload_publish_retries[key] = 3
    scheduler.check(0)
    assert key in scheduler.executor.queued_tasks
    scheduler.check(20)
    assert key not in scheduler.executor.queued_tasks
    assert key not in scheduler.executor.workload_publish_retries


def test_upstream_has_no_check_for_leaked_slots(scheduler, upstream):
    """If this fails, upstream may be fixed: check whether airflow_ha.patches.release_leaked_slots can be deleted."""
    import inspect

    from airflow.jobs import scheduler_job_runner
    from airflow.providers.celery.executors import celery_executor

    source = inspect.getsource(scheduler_job_runner) + inspect.getsource(celery_executor)
    uses = [line for line in source.splitlines() if "running.discard(" in line or "running.remove(" in line]
    assert len(uses) == 1, "only revoke_task's, for a task that is stuck in queued"
