"""A scheduler looks at a run's tasks when there may be something to decide, and leaves the run out when not."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

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
    """The patch, loaded as in a scheduler."""
    with applied("skip_idle_dag_runs") as module:
        yield module


@pytest.fixture(scope="module")
def run_ids(upstream, tmp_path_factory):
    """Three runs of one DAG of three tasks."""
    from airflow._shared.timezones import timezone
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.db import initdb
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    initdb()
    folder = tmp_path_factory.mktemp("dags")
    (folder / "settled.py").write_text(DAG)
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(dag_folder=folder), "dags-folder", None)
    dag = SerializedDagModel.get_dag("settled")
    how = {
        "run_after": timezone.utcnow(),
        "run_type": DagRunType.MANUAL,
        "triggered_by": DagRunTriggeredByType.TEST,
        "state": "running",
    }
    return [dag.create_dagrun(run_id=f"run_{number}", **how).id for number in range(3)]


class Scheduler:
    """One that does its rounds when it is told to."""

    def __init__(self, upstream, run_ids, monkeypatch) -> None:
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dagrun import DagRun

        self.run_ids = run_ids
        self.looked: list[int] = []
        self.runner = SchedulerJobRunner(Job())
        decide = upstream._decide

        def look(run, *, session):
            self.looked.append(run.id)
            return decide(run, session=session)

        monkeypatch.setattr(upstream, "_decide", look)
        monkeypatch.setattr(upstream, "MANY", 1)
        monkeypatch.setattr(DagRun, "_emit_dagrun_span", lambda *_, **__: None)
        upstream._looks.clear()

    def set(self, *states: str | None, runs: slice = slice(0, 1), **columns) -> None:
        """Tasks are in these states, all that are left in the last, and their runs are under way."""
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

    def round(self, runs: slice = slice(0, 1), schedule=None) -> list[int]:
        """Which runs' tasks it has looked at, by the runs' places."""
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.sqlalchemy import prohibit_commit

        self.looked.clear()
        schedule = schedule or SchedulerJobRunner._schedule_all_dag_runs
        with create_session() as session, prohibit_commit(session) as guard:
            found = [session.get(DagRun, run_id) for run_id in self.run_ids[runs]]
            schedule(self.runner, guard, iter(found), session)
        return [self.run_ids.index(run_id) for run_id in self.looked]

    def states(self) -> list[str]:
        """The runs' states, as the database has them."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            return [session.get(DagRun, run_id).state for run_id in self.run_ids]

    def run(self):
        """The first run, as the database has it."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.get(DagRun, self.run_ids[0])


@pytest.fixture
def scheduler(upstream, run_ids, monkeypatch):
    return Scheduler(upstream, run_ids, monkeypatch)


@pytest.mark.parametrize(
    ("states", "looks"),
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
def test_it_looks_when_a_task_is_undecided_or_none_is_left(scheduler, states, looks):
    scheduler.set("running")
    assert scheduler.round() == [0]
    scheduler.set(*states)
    assert scheduler.round() == [0] * looks


def test_a_run_that_is_left_out_takes_its_turn_and_ends_when_its_tasks_have(scheduler):
    scheduler.set("running")
    scheduler.round()
    before = scheduler.run().last_scheduling_decision
    assert scheduler.round() == []
    assert scheduler.run().last_scheduling_decision > before
    assert scheduler.run().state == "running"
    scheduler.set("success")
    assert scheduler.round() == [0]
    assert scheduler.run().state == "success"


def test_a_run_of_few_tasks_is_always_looked_at(scheduler, upstream, monkeypatch):
    monkeypatch.setattr(upstream, "MANY", 1000)
    scheduler.set("running")
    assert [scheduler.round(), scheduler.round()] == [[0], [0]]


def test_a_run_that_nobody_has_looked_at_is_looked_at_however_many_there_are(scheduler):
    scheduler.set("running", runs=slice(3), last_scheduling_decision=None)
    assert scheduler.round(slice(3)) == [0, 1, 2]


def test_those_that_another_scheduler_has_looked_at_are_looked_at_one_a_round(scheduler):
    scheduler.set("running", runs=slice(3))
    looked = [scheduler.round(slice(3)) for _ in range(5)]
    assert sorted(looked) == [[], [], [0], [1], [2]]


def test_all_are_looked_at_again_and_again_one_a_round(scheduler, upstream, monkeypatch):
    scheduler.set("running", runs=slice(3))
    for _ in range(3):
        scheduler.round(slice(3))
    now = time.monotonic
    monkeypatch.setattr(upstream.time, "monotonic", lambda: now() + upstream.LOOK_SECONDS)
    assert sorted(scheduler.round(slice(3)) for _ in range(3)) == [[0], [1], [2]]


def test_runs_whose_turns_are_rare_are_examined_together(scheduler):
    """Three that wait 190 s for a turn: two in each loop, and each is examined every 285 s."""
    from airflow._shared.timezones import timezone

    before = timezone.utcnow() - timedelta(seconds=190)
    scheduler.set("running", runs=slice(3), last_scheduling_decision=before)
    assert len(scheduler.round(slice(3))) == 2
    assert len(scheduler.round(slice(3))) == 1


def test_another_version_of_its_dag_is_something(scheduler, upstream):
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    scheduler.set("running")
    assert [scheduler.round(), scheduler.round()] == [[0], []]
    run = scheduler.run()
    with create_session() as session:
        assert upstream.settled([run], session).keys() == {run.id}
        newest = DagVersion.get_latest_version("settled", session=session).version_number
        session.add(DagVersion(dag_id="settled", version_number=newest + 1, bundle_name="dags-folder"))
        session.flush()
        assert upstream.settled([run], session) == {}
        run.bundle_version = "a1b2c3"
        session.merge(run)
        session.flush()
        assert upstream.settled([run], session).keys() == {run.id}, "upstream keeps its tasks' version"
        session.rollback()


@pytest.mark.parametrize("problem", ["gone", "unreadable"])
def test_a_dag_that_cannot_be_read_is_left_to_upstream(scheduler, upstream, monkeypatch, problem):
    scheduler.set("running", runs=slice(3))
    for _ in range(3):
        scheduler.round(slice(3))
    assert scheduler.round(slice(3)) == []

    def get_dag(_version, _session):
        if problem == "unreadable":
            raise ValueError

    monkeypatch.setattr(scheduler.runner.scheduler_dag_bag, "get_dag", get_dag)
    assert scheduler.round(slice(3)) == [0, 1, 2]


def test_after_a_restart_all_overdue_runs_fail_at_once(scheduler, monkeypatch):
    from airflow._shared.timezones import timezone

    scheduler.set("deferred", runs=slice(3))
    later = timezone.utcnow() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(timezone, "utcnow", lambda: later)
    scheduler.round(slice(3))
    assert scheduler.states() == ["failed"] * 3


def test_after_a_restart_a_new_version_examines_all_runs(scheduler, monkeypatch):
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    scheduler.set("deferred", runs=slice(3))
    with create_session() as session:
        newest = DagVersion.get_latest_version("settled", session=session).version_number
        session.add(DagVersion(dag_id="settled", version_number=newest + 1, bundle_name="dags-folder"))
    try:
        # The new version has no DAG in this database: upstream says so of each run that it examines.
        examined = []
        monkeypatch.setattr(scheduler.runner, "_schedule_dag_run", lambda run, **_: examined.append(run.id))
        scheduler.round(slice(3))
        assert examined == scheduler.run_ids
    finally:
        with create_session() as session:
            session.delete(DagVersion.get_latest_version("settled", session=session))


def test_a_run_whose_time_is_over_fails_as_upstreams_does(scheduler, monkeypatch):
    from airflow._shared.timezones import timezone

    scheduler.set("running")
    assert [scheduler.round(), scheduler.round()] == [[0], []]
    later = timezone.utcnow() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(timezone, "utcnow", lambda: later)
    scheduler.round()
    assert scheduler.run().state == "failed"


def test_upstream_looks_whatever_there_is(scheduler, upstream):
    """When this fails, Airflow has fixed it: delete airflow_ha.patches.skip_idle_dag_runs and this file."""
    scheduler.set("running")
    assert [scheduler.round(schedule=upstream._schedule) for _ in range(2)] == [[0], [0]]
