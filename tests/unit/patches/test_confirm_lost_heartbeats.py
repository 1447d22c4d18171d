"""Healthy tasks are not run twice after the database or the scheduler was blocked."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from ops.project import ROOT
from tests.unit.patches.loading import applied

TIMEOUT = 35.0
CHECK_SECONDS = 3.0


@pytest.fixture(scope="module")
def upstream():
    """The patch, applied as in a scheduler."""
    with applied("confirm_lost_heartbeats") as module:
        yield module


@pytest.fixture(scope="module")
def running(upstream):
    """The ids of a run's running tasks, which scheduler job 7 queued."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import update

    initdb()
    run = DagBag(dag_folder=str(ROOT / "dags/canary_dag.py")).dags["canary_dag"].test()
    tasks = [task.id for task in run.get_task_instances()]
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.id.in_(tasks)).values(state="running"))
    return tasks


class Scheduler:
    """A scheduler with a fake clock; `starved` is the share of time that it waits for a CPU."""

    def __init__(self, upstream, tasks, starved: float = 0.0) -> None:
        from airflow._shared.timezones import timezone
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        self.upstream = upstream
        self.tasks = tasks
        self.now = 1000.0
        self.began = timezone.utcnow()
        self.tracker = upstream.SilenceTracker(lambda: self.now, lambda: starved * self.now)
        self.job = SimpleNamespace(
            job=SimpleNamespace(id=7), _task_instance_heartbeat_timeout_secs=TIMEOUT, log=SchedulerJobRunner.logger()
        )

    def heartbeat(self) -> None:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import update

        with create_session() as session:
            session.execute(
                update(TaskInstance)
                .where(TaskInstance.id.in_(self.tasks))
                .values(last_heartbeat_at=self.time(), queued_by_job_id=7)
            )

    def time(self):
        return self.began + timedelta(seconds=self.now)

    def check(self, find) -> set:
        from airflow._shared.timezones import timezone
        from airflow.utils.session import create_session

        with pytest.MonkeyPatch.context() as patch, create_session() as session:
            patch.setattr(timezone, "utcnow", self.time)
            patch.setattr(self.upstream, "_tracker", self.tracker)
            return {task.id for task in find(self.job, session=session)}

    def seconds_until_dead(self, find, until: float) -> float | None:
        """Return the seconds until tasks are found dead; None if they are not within the limit."""
        began = self.now
        while self.now - began < until:
            self.now += CHECK_SECONDS
            if self.check(find):
                return self.now - began
        return None


@pytest.fixture
def scheduler(upstream, running):
    scheduler = Scheduler(upstream, running)
    scheduler.heartbeat()
    return scheduler


def test_dead_task_is_detected_without_extra_delay(upstream, scheduler):
    seconds = scheduler.seconds_until_dead(upstream.find_task_instances_without_heartbeats, 60)
    assert TIMEOUT < seconds <= TIMEOUT + 2 * CHECK_SECONDS


def test_healthy_task_survives_a_blocked_scheduler(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    assert scheduler.check(find) == set()
    scheduler.now += 120  # a frozen database blocks the scheduler
    assert scheduler.check(find) == set()
    assert scheduler.seconds_until_dead(find, upstream.CONFIRM_SECONDS - CHECK_SECONDS) is None
    scheduler.heartbeat()
    assert scheduler.seconds_until_dead(find, TIMEOUT - CHECK_SECONDS) is None


@pytest.mark.parametrize(("share", "factor"), [(0.4, 1), (0.8, 5), (0.95, 20)])
def test_starved_scheduler_waits_longer_for_heartbeats(upstream, running, share, factor):
    scheduler = Scheduler(upstream, running, starved=share)
    scheduler.heartbeat()
    seconds = scheduler.seconds_until_dead(upstream.find_task_instances_without_heartbeats, 600)
    early = TIMEOUT - upstream.CONFIRM_SECONDS
    assert early + factor * upstream.CONFIRM_SECONDS <= seconds
    assert seconds <= early + factor * upstream.CONFIRM_SECONDS + 3 * CHECK_SECONDS


def test_task_silent_after_a_blocked_scheduler_is_dead(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    scheduler.now += 120
    assert scheduler.check(find) == set()
    assert scheduler.seconds_until_dead(find, 60) <= upstream.CONFIRM_SECONDS + CHECK_SECONDS
    assert scheduler.check(find) == set(scheduler.tasks)


def test_slow_scheduler_still_detects_dead_tasks(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    results = []
    for _ in range(6):
        scheduler.now += 30
        results.append(bool(scheduler.check(find)))
    assert results[-1]


def test_upstream_fails_every_task_at_its_first_check(upstream, scheduler):
    """If this fails, upstream is fixed: delete airflow_ha.patches.confirm_lost_heartbeats and this file."""
    scheduler.now += 120
    assert scheduler.check(upstream._find) == set(scheduler.tasks)
