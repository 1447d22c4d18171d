"""Running and queued DAG runs that can progress get their turn beside any number of waiting runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.patches.dag_database import store_dags
from tests.unit.patches.loading import applied

DAG = """
from datetime import UTC, datetime

from airflow.sdk import DAG, task

for name in ("fair", "other"):
    with DAG(name, start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, max_active_runs=100):
        for task_id in ("first", "second"):
            task(task_id=task_id)(lambda: None)()
"""
LIMIT = 4
"""Runs per scheduler loop in these tests."""


@pytest.fixture(scope="module")
def patch():
    """The patch, applied as in a scheduler."""
    with applied("dag_run_examination_order") as module:
        yield module


@pytest.fixture(scope="module")
def dags(tmp_path_factory):
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    store_dags(DAG, tmp_path_factory.mktemp("dags"))
    with create_session() as session:
        session.execute(update(DagModel).values(is_paused=False))
    return {name: SerializedDagModel.get_dag(name) for name in ("fair", "other")}


@pytest.fixture
def runs(patch, dags, monkeypatch):
    """An empty database in which a test creates and examines runs."""
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    monkeypatch.setattr(DagRun, "DEFAULT_DAGRUNS_TO_EXAMINE", LIMIT)
    with create_session() as session:
        for model in (BackfillDagRun, DagRun, Backfill):
            session.execute(delete(model))
    return Runs(dags)


class Runs:
    def __init__(self, dags) -> None:
        self.dags = dags
        self.created = 0

    def create(self, *names: str, dag: str = "fair", state: str = "running", **columns) -> list[int]:
        """Create runs with these names."""
        from airflow._shared.timezones import timezone
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        common = {"run_type": DagRunType.MANUAL, "triggered_by": DagRunTriggeredByType.TEST, "state": state}
        ids = []
        for name in names:
            self.created += 1
            after = timezone.utcnow() - timedelta(hours=1) + timedelta(seconds=self.created)
            ids.append(self.dags[dag].create_dagrun(run_id=name, run_after=after, **common).id)
        with create_session() as session:
            for run_id in ids:
                for column, value in columns.items():
                    setattr(session.get(DagRun, run_id), column, value)
        return ids

    def waiting(self, number: int, *states: str | None, minutes: float = 1) -> None:
        """Create runs that were examined some minutes ago and whose tasks have not changed since."""
        self.tasks(f"waiting_{minutes}", number, states or ("deferred", None), minutes=minutes)

    def tasks(self, name: str, number: int, states, *, minutes: float, changed: float = 60) -> None:
        """Create runs whose tasks have these states and changed some minutes ago."""
        from airflow._shared.timezones import timezone
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import update

        now = timezone.utcnow()
        names = [f"{name}_{place}" for place in range(number)] if number > 1 else [name]
        self.create(*names, last_scheduling_decision=now - timedelta(minutes=minutes))
        with create_session() as session:
            for task_id, state in zip(("first", "second"), states, strict=True):
                tasks = update(TaskInstance).where(TaskInstance.run_id.in_(names), TaskInstance.task_id == task_id)
                session.execute(tasks.values(state=state, updated_at=now - timedelta(minutes=changed)))

    def reschedule(self, name: str, *, minutes: float) -> None:
        """Make the first task of a run due in some minutes."""
        from airflow._shared.timezones import timezone
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.taskreschedule import TaskReschedule
        from airflow.utils.session import create_session
        from sqlalchemy import select

        now = timezone.utcnow()
        with create_session() as session:
            first = TaskInstance.run_id == name, TaskInstance.task_id == "first"
            ti_id = session.scalar(select(TaskInstance.id).where(*first))
            session.add(TaskReschedule(ti_id, now, now, now + timedelta(minutes=minutes)))

    def backfill(self, number: int, *names: str, state: str = "running", limit: int = 10, **columns) -> None:
        """Create runs of a backfill, in its order."""
        from airflow._shared.timezones import timezone
        from airflow.models.backfill import Backfill, BackfillDagRun
        from airflow.utils.session import create_session

        now = timezone.utcnow()
        days = {"from_date": now, "to_date": now, "dag_run_conf": {}, "reprocess_behavior": "none"}
        with create_session() as session:
            session.add(Backfill(id=number, dag_id="fair", max_active_runs=limit, **days))
        for place, run_id in enumerate(self.create(*names, state=state, backfill_id=number, **columns), 1):
            with create_session() as session:
                row = {"backfill_id": number, "dag_run_id": run_id, "logical_date": now + timedelta(seconds=place)}
                session.add(BackfillDagRun(sort_ordinal=place, **row))

    def examined(self, examine=None) -> list[str]:
        """Return the names of the running runs that a scheduler loop examines."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            runs = (examine or DagRun.get_running_dag_runs_to_examine)(session=session)
            return [run.run_id for run in runs]

    def started(self, find=None) -> list[str]:
        """Return the names of the queued runs that a scheduler loop may start."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            runs = (find or DagRun.get_queued_dag_runs_to_set_running)(session=session)
            return [run.run_id for run in runs]


def test_backfill_run_beside_waiting_runs_is_examined(runs):
    runs.waiting(10)
    runs.backfill(1, "backfilled")
    assert "backfilled" in runs.examined()


def test_new_run_beside_waiting_runs_is_examined_first(runs):
    runs.waiting(10)
    runs.create("new")
    assert runs.examined()[0] == "new"


@pytest.mark.parametrize(
    ("states", "changed"),
    [
        (("success", None), 0.5),
        (("skipped", "deferred"), 0.5),
        ((None, "running"), 0.5),
        (("success", None), 1.05),
        (("success", None), 60),
        (("up_for_retry", "deferred"), 60),
        (("success", "failed"), 60),
    ],
)
def test_run_with_a_due_decision_precedes_waiting_runs(runs, states, changed):
    runs.waiting(10, minutes=30)
    runs.tasks("due", 1, states, minutes=1, changed=changed)
    assert runs.examined()[0] == "due"


@pytest.mark.parametrize("states", [("deferred", None), ("running", None), ("scheduled", "success"), ("queued", None)])
def test_waiting_run_follows_a_changed_run(runs, states):
    runs.waiting(LIMIT, *states, minutes=30)
    runs.tasks("changed", 1, ("success", None), minutes=1, changed=0.5)
    assert runs.examined()[0] == "changed"


def test_change_committed_late_is_seen(runs):
    runs.waiting(10, minutes=30)
    runs.tasks("late", 1, ("success", "deferred"), minutes=0, changed=0.05)
    assert runs.examined()[0] == "late"


@pytest.mark.parametrize(("minutes", "place"), [(-0.1, 0), (5, None)])
def test_rescheduled_sensor_is_examined_when_due(runs, minutes, place):
    runs.waiting(10, minutes=30)
    runs.tasks("sensor", 1, ("up_for_reschedule", None), minutes=1)
    runs.reschedule("sensor", minutes=-10)
    runs.reschedule("sensor", minutes=minutes)
    examined = runs.examined()
    assert (examined.index("sensor") if "sensor" in examined else None) == place


def test_least_recent_run_is_examined_beside_urgent_runs(runs, patch):
    runs.waiting(1, minutes=30)
    runs.create(*(f"new_{number}" for number in range(20)))
    examined = runs.examined()
    assert len(examined) == LIMIT + patch.LEAST_RECENT
    assert "waiting_30" in examined[LIMIT:]


def test_few_running_runs_are_left_to_upstream(runs):
    runs.waiting(LIMIT - 1, minutes=5)
    runs.backfill(1, "backfilled")
    assert len(runs.examined()) == LIMIT


def test_run_whose_examination_fails_loses_its_turn(runs, patch, monkeypatch):
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    def broken(*_, **__):
        raise RuntimeError("broken")

    (run_id,) = runs.create("broken")
    monkeypatch.setattr(DagRun, "update_state", broken)
    with create_session() as session:
        run = session.get(DagRun, run_id)
        with pytest.raises(RuntimeError):
            SchedulerJobRunner(Job())._schedule_dag_run(run, session)
        assert run.last_scheduling_decision


def test_run_with_a_future_date_loses_its_turn(runs):
    from airflow._shared.timezones import timezone
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    (run_id,) = runs.create("future", logical_date=timezone.utcnow() + timedelta(days=1))
    with create_session() as session:
        run = session.get(DagRun, run_id)
        SchedulerJobRunner(Job())._schedule_dag_run(run, session)
        assert run.last_scheduling_decision


def test_queued_runs_over_the_limit_take_no_place(runs):
    runs.create(*(f"running_{number}" for number in range(99)))
    runs.create(*(f"queued_{number}" for number in range(10)), state="queued")
    runs.create(*(f"other_{number}" for number in range(2)), dag="other", state="queued")
    runs.backfill(1, "newest", "older", "oldest", state="queued", limit=2)
    assert sorted(runs.started()) == ["newest", "other_0", "other_1", "queued_0"]


def test_backfill_starts_in_order_up_to_its_limit(runs):
    runs.backfill(1, "running")
    runs.backfill(2, "newest", "older", "oldest", state="queued", limit=2)
    assert runs.started() == ["newest", "older"]


def test_upstream_examines_waiting_runs_before_a_backfill(runs, patch):
    """If this fails, upstream examines backfills fairly: check whether dag_run_examination_order.py can be deleted."""
    runs.waiting(10)
    runs.backfill(1, "backfilled")
    assert "backfilled" not in runs.examined(patch._running)
