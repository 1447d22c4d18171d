"""Healthy tasks are not run a second time because the database, or the scheduler, was away."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest

from tests.unit.patches.loading import applied

TIMEOUT = 35.0
LOOK = 3.0


@pytest.fixture(scope="module")
def upstream():
    """The patch, loaded as in a scheduler."""
    with applied("confirm_lost_heartbeats") as module:
        yield module


@pytest.fixture(scope="module")
def running(upstream):
    """The tasks of a run, as a scheduler's job 7 has queued them, and running."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import update

    initdb()
    run = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags["canary_dag"].test()
    tasks = [one.id for one in run.get_task_instances()]
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.id.in_(tasks)).values(state="running"))
    return tasks


class Scheduler:
    """One whose clock is ours, and which looks as the real one does; `starved` is its share of waiting for a CPU."""

    def __init__(self, upstream, tasks, starved: float = 0.0) -> None:
        from airflow._shared.timezones import timezone
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        self.upstream = upstream
        self.tasks = tasks
        self.now = 1000.0
        self.began = timezone.utcnow()
        self.patience = upstream.Patience(lambda: self.now, lambda: starved * self.now)
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

    def looks(self, find) -> set:
        from airflow._shared.timezones import timezone
        from airflow.utils.session import create_session

        with pytest.MonkeyPatch.context() as patch, create_session() as session:
            patch.setattr(timezone, "utcnow", self.time)
            patch.setattr(self.upstream, "_patience", self.patience)
            return {one.id for one in find(self.job, session=session)}

    def first_found(self, find, until: float) -> float | None:
        """Seconds from now until it finds tasks dead; None when it does not, for so long."""
        began = self.now
        while self.now - began < until:
            self.now += LOOK
            if self.looks(find):
                return self.now - began
        return None


@pytest.fixture
def scheduler(upstream, running):
    scheduler = Scheduler(upstream, running)
    scheduler.heartbeat()
    return scheduler


def test_a_dead_workers_tasks_are_found_no_later_than_without(upstream, scheduler):
    found = scheduler.first_found(upstream.find_task_instances_without_heartbeats, 60)
    assert TIMEOUT < found <= TIMEOUT + 2 * LOOK


def test_after_an_absence_healthy_tasks_have_the_time_to_be_heard(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    assert scheduler.looks(find) == set()
    scheduler.now += 120  # the database, and with it the scheduler, is frozen
    assert scheduler.looks(find) == set()
    assert scheduler.first_found(find, upstream.CONFIRM_SECONDS - LOOK) is None
    scheduler.heartbeat()
    assert scheduler.first_found(find, TIMEOUT - LOOK) is None


@pytest.mark.parametrize(("share", "patience"), [(0.4, 1), (0.8, 5), (0.95, 20)])
def test_a_starved_scheduler_gives_heartbeats_more_time(upstream, running, share, patience):
    scheduler = Scheduler(upstream, running, starved=share)
    scheduler.heartbeat()
    found = scheduler.first_found(upstream.find_task_instances_without_heartbeats, 600)
    early = TIMEOUT - upstream.CONFIRM_SECONDS
    assert early + patience * upstream.CONFIRM_SECONDS <= found
    assert found <= early + patience * upstream.CONFIRM_SECONDS + 3 * LOOK


def test_what_stays_silent_after_an_absence_is_dead(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    scheduler.now += 120
    assert scheduler.looks(find) == set()
    assert scheduler.first_found(find, 60) <= upstream.CONFIRM_SECONDS + LOOK
    assert scheduler.looks(find) == set(scheduler.tasks)


def test_a_scheduler_that_is_always_slow_still_finds_them(upstream, scheduler):
    find = upstream.find_task_instances_without_heartbeats
    found = []
    for _ in range(6):
        scheduler.now += 30
        found.append(bool(scheduler.looks(find)))
    assert found[-1]


def test_upstream_finds_every_task_dead_at_its_first_look(upstream, scheduler):
    """When this fails, Airflow has fixed it: delete airflow_ha.patches.confirm_lost_heartbeats and this file."""
    scheduler.now += 120
    assert scheduler.looks(upstream._find) == set(scheduler.tasks)
