"""A scheduler loads a run's tasks only if a decision may be due, and otherwise leaves the run out."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from tests.unit.patches.dag_database import create_run, store_dags
from tests.unit.patches.loading import applied

DAG = """
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

with DAG("settled", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, dagrun_timeout=timedelta(hours=1)):
    for name in ("first", "second", "third"):
        task(task_id=name)(lambda: None)()
"""


@pytest.fixture(scope="module")
def upstream():
    """The patch, applied as in a scheduler."""
    with applied("skip_idle_dag_runs") as module:
        yield module


@pytest.fixture(scope="module")
def run_ids(upstream, tmp_path_factory):
    """The ids of three runs of one DAG with three tasks."""
    store_dags(DAG, tmp_path_factory.mktemp("dags"))
    return [create_run("settled", f"run_{number}").id for number in range(3)]


class Scheduler:
    """A scheduler that runs one loop per call."""

    def __init__(self, upstream, run_ids, monkeypatch) -> None:
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dagrun import DagRun

        self.run_ids = run_ids
        self.loaded: list[int] = []
        self.runner = SchedulerJobRunner(Job())
        decide = upstream._decide

        def record_and_decide(run, *, session):
            self.loaded.append(run.id)
            return decide(run, session=session)

        monkeypatch.setattr(upstream, "_decide", record_and_decide)
        monkeypatch.setattr(upstream, "MIN_TASKS", 1)
        monkeypatch.setattr(DagRun, "_emit_dagrun_span", lambda *_, **__: None)
        upstream._examinations.clear()

    def set(self, *states: str | None, runs: slice = slice(0, 1), **columns) -> None:
        """Set the states of the tasks (the last state applies to all remaining tasks), and start their runs."""
        from airflow._shared.timezones import timezone
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            for run_id in self.run_ids[runs]:
                run = session.get(DagRun, run_id)
                run._state = "running"
                run.last_scheduling_decision = run.start_date = timezone.utcnow()
                for name, value in columns.items():
                    setattr(run, name, value)
                for number, task in enumerate(run.get_task_instances(session=session)):
                    task.state = states[min(number, len(states) - 1)]

    def run_loop(self, runs: slice = slice(0, 1), schedule=None) -> list[int]:
        """Run one loop, and return the indexes of the runs whose tasks were loaded."""
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.sqlalchemy import prohibit_commit

        self.loaded.clear()
        schedule = schedule or SchedulerJobRunner._schedule_all_dag_runs
        with create_session() as session, prohibit_commit(session) as guard:
            selected = [session.get(DagRun, run_id) for run_id in self.run_ids[runs]]
            schedule(self.runner, guard, iter(selected), session)
        return [self.run_ids.index(run_id) for run_id in self.loaded]

    def states(self) -> list[str]:
        """Return the states of the runs in the database."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            return [session.get(DagRun, run_id).state for run_id in self.run_ids]

    def run(self):
        """Return the first run from the database."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.get(DagRun, self.run_ids[0])


@pytest.fixture
def scheduler(upstream, run_ids, monkeypatch):
    return Scheduler(upstream, run_ids, monkeypatch)


@pytest.mark.parametrize(
    ("states", "is_loaded"),
    [
        (["scheduled"], False),
        (["success", "scheduled"], False),
        (["running", "queued"], False),
        (["success", "deferred"], False),
        (["success", "restarting"], False),
        (["scheduled", None], True),
        (["running", "up_for_retry"], True),
        (["running", "up_for_reschedule"], True),
        (["success"], True),
        (["success", "failed"], True),
    ],
)
def test_tasks_are_loaded_if_a_decision_is_due(scheduler, states, is_loaded):
    scheduler.set("running")
    assert scheduler.run_loop() == [0]
    scheduler.set(*states)
    assert scheduler.run_loop() == [0] * is_loaded


def test_skipped_run_still_ends_with_its_last_task(scheduler):
    scheduler.set("running")
    scheduler.run_loop()
    before = scheduler.run().last_scheduling_decision
    assert scheduler.run_loop() == []
    assert scheduler.run().last_scheduling_decision > before
    assert scheduler.run().state == "running"
    scheduler.set("success")
    assert scheduler.run_loop() == [0]
    assert scheduler.run().state == "success"


def test_run_of_few_tasks_is_always_loaded(scheduler, upstream, monkeypatch):
    monkeypatch.setattr(upstream, "MIN_TASKS", 1000)
    scheduler.set("running")
    assert [scheduler.run_loop(), scheduler.run_loop()] == [[0], [0]]


def test_new_runs_are_all_loaded_in_one_loop(scheduler):
    scheduler.set("running", runs=slice(3), last_scheduling_decision=None)
    assert scheduler.run_loop(slice(3)) == [0, 1, 2]


def test_runs_of_another_scheduler_are_loaded_one_per_loop(scheduler):
    scheduler.set("running", runs=slice(3))
    loaded = [scheduler.run_loop(slice(3)) for _ in range(5)]
    assert sorted(loaded) == [[], [], [0], [1], [2]]


def test_idle_runs_are_rechecked_one_per_loop(scheduler, upstream, monkeypatch):
    scheduler.set("running", runs=slice(3))
    for _ in range(3):
        scheduler.run_loop(slice(3))
    now = time.monotonic
    monkeypatch.setattr(upstream.time, "monotonic", lambda: now() + upstream.RECHECK_SECONDS)
    assert sorted(scheduler.run_loop(slice(3)) for _ in range(3)) == [[0], [1], [2]]


def test_runs_with_rare_turns_are_rechecked_together(scheduler):
    """Three runs that wait 190 s for a turn: each loop examines two, and each run every 285 s."""
    from airflow._shared.timezones import timezone

    before = timezone.utcnow() - timedelta(seconds=190)
    scheduler.set("running", runs=slice(3), last_scheduling_decision=before)
    assert len(scheduler.run_loop(slice(3))) == 2
    assert len(scheduler.run_loop(slice(3))) == 1


def test_new_dag_version_makes_a_decision_due(scheduler, upstream):
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    scheduler.set("running")
    assert [scheduler.run_loop(), scheduler.run_loop()] == [[0], []]
    run = scheduler.run()
    with create_session() as session:
        assert upstream.idle_runs([run], session).keys() == {run.id}
        newest = DagVersion.get_latest_version("settled", session=session).version_number
        session.add(DagVersion(dag_id="settled", version_number=newest + 1, bundle_name="dags-folder"))
        session.flush()
        assert upstream.idle_runs([run], session) == {}
        run.bundle_version = "a1b2c3"
        session.merge(run)
        session.flush()
        assert upstream.idle_runs([run], session).keys() == {run.id}, "upstream keeps the version of its tasks"
        session.rollback()


@pytest.mark.parametrize("problem", ["gone", "unreadable"])
def test_run_with_an_unreadable_dag_is_left_to_upstream(scheduler, upstream, monkeypatch, problem):
    scheduler.set("running", runs=slice(3))
    for _ in range(3):
        scheduler.run_loop(slice(3))
    assert scheduler.run_loop(slice(3)) == []

    def get_dag(_version, _session):
        if problem == "unreadable":
            raise ValueError

    monkeypatch.setattr(scheduler.runner.scheduler_dag_bag, "get_dag", get_dag)
    assert scheduler.run_loop(slice(3)) == [0, 1, 2]


def test_overdue_runs_fail_at_once_after_a_restart(scheduler, monkeypatch):
    from airflow._shared.timezones import timezone

    scheduler.set("deferred", runs=slice(3))
    later = timezone.utcnow() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(timezone, "utcnow", lambda: later)
    scheduler.run_loop(slice(3))
    assert scheduler.states() == ["failed"] * 3


def test_new_version_after_a_restart_examines_all_runs(scheduler, monkeypatch):
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    scheduler.set("deferred", runs=slice(3))
    with create_session() as session:
        newest = DagVersion.get_latest_version("settled", session=session).version_number
        session.add(DagVersion(dag_id="settled", version_number=newest + 1, bundle_name="dags-folder"))
    try:
        # The new version has no DAG in this database: upstream logs that for each run that it examines.
        examined = []
        monkeypatch.setattr(scheduler.runner, "_schedule_dag_run", lambda run, **_: examined.append(run.id))
        scheduler.run_loop(slice(3))
        assert examined == scheduler.run_ids
    finally:
        with create_session() as session:
            session.delete(DagVersion.get_latest_version("settled", session=session))


def test_run_past_its_timeout_fails(scheduler, monkeypatch):
    from airflow._shared.timezones import timezone

    scheduler.set("running")
    assert [scheduler.run_loop(), scheduler.run_loop()] == [[0], []]
    later = timezone.utcnow() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(timezone, "utcnow", lambda: later)
    scheduler.run_loop()
    assert scheduler.run().state == "failed"


def test_upstream_loads_all_tasks_of_every_run(scheduler, upstream):
    """If this fails, upstream is fixed: delete airflow_ha.patches.skip_idle_dag_runs and this file."""
    scheduler.set("running")
    assert [scheduler.run_loop(schedule=upstream._schedule) for _ in range(2)] == [[0], [0]]
