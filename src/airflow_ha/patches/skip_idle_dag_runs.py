"""A scheduler looks at all the tasks of a large run only when there may be something to decide for one of them.

Problem: in each loop a scheduler loads every task of every run under way, of a run of a thousand a thousand rows of
sixty columns, to see which may begin and whether the run has ended. Where all that is left of a run waits for a slot or
runs, nothing comes of it. With ten such runs a loop takes a second, and all other runs wait for it.
Patch: in one query a scheduler asks first which runs have nothing to decide, and leaves those out of the loop. There is
something when a task is not scheduled yet, waits for its next try, or when none is left; when the DAG has another
version than the run's tasks; and when `dagrun_timeout` is over. All of that is in the database, so a restart changes
nothing. Each scheduler still loads every run once, and again every LOOK_SECONDS, a few in each loop.
Applies to: Airflow 3.3.2, `airflow.models.dagrun` and `airflow.jobs.scheduler_job_runner`. Schedulers.
Upstream issue: https://github.com/apache/airflow/issues/31185
Remove when: `test_upstream_looks_whatever_there_is` fails.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow._shared.timezones import timezone
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.ti_deps.dependencies_states import SCHEDULEABLE_STATES
from airflow.utils.session import NEW_SESSION
from airflow.utils.state import State
from cachetools import LRUCache
from sqlalchemy import func, or_, select
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from airflow.models.dagbag import DBDagBag
    from sqlalchemy.orm import Session

MANY: Final = 20
"""Tasks: fewer are loaded as quickly as they are asked about."""
LOOK_SECONDS: Final = 300.0
RUNS: Final = 10_000
"""Runs that are remembered: more than schedulers have under way."""
UNDECIDED: Final = frozenset(state for state in SCHEDULEABLE_STATES if state is not None)
"""The states in which a task waits for a scheduler's decision, as one without a state does."""
DECIDED: Final = frozenset(state for state in State.unfinished if state is not None) - UNDECIDED
"""The states of a task that waits for a slot, for a trigger or for people, or runs."""


@dataclass(frozen=True)
class Look:
    """What was seen when all the tasks of a run were looked at.

    Attributes:
        tasks: how many there were.
        at: when that was, by the monotonic clock.
    """

    tasks: int
    at: float


_looks: LRUCache[int, Look] = LRUCache(RUNS)
"""By the run's id."""

_decide: Any = DagRun.task_instance_scheduling_decisions
_schedule: Any = SchedulerJobRunner._schedule_all_dag_runs


def settled(runs: Sequence[DagRun], session: Session) -> dict[int, UUID]:
    """Those in which tasks are left, with nothing to decide for any of them.

    Args:
        runs: of these.
        session: with which the database is asked.

    Returns:
        By their ids, the newest version of their DAG.
    """
    tasks = select(TaskInstance.id).where(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id)
    left = tasks.where(TaskInstance.state.in_(DECIDED)).exists()
    undecided = tasks.where(or_(TaskInstance.state.is_(None), TaskInstance.state.in_(UNDECIDED))).exists()
    latest: Any = DagVersion._latest_version_select(DagRun.dag_id)
    newest = latest.with_only_columns(DagVersion.id).correlate(DagRun).scalar_subquery()
    # Upstream moves the tasks that are left to the newest version, but those of a bundle's version keep theirs.
    has_newest = tasks.where(TaskInstance.dag_version_id == newest).exists()
    up_to_date = or_(func.coalesce(DagRun.bundle_version, "") != "", has_newest)
    found = select(DagRun.id, newest).where(DagRun.id.in_([run.id for run in runs]), left, ~undecided, up_to_date)
    return dict(session.execute(found).tuples().all())


def is_over(run: DagRun, newest: UUID, dags: DBDagBag, session: Session) -> bool:
    """Whether a run's `dagrun_timeout` is over, or is not known: upstream then says what is wrong with its DAG.

    Args:
        run: The run.
        newest: The newest version of its DAG.
        dags: From which its DAG is taken.
        session: with which the database is asked when it is not there.
    """
    version = run.created_dag_version_id if run.bundle_version else None
    try:
        dag = dags.get_dag(version or newest, session)
    except DBAPIError:  # the transaction is rolled back and tried again
        raise
    except Exception:
        return True
    if dag is None:
        return True
    limit = dag.dagrun_timeout
    return bool(run.start_date and limit and timezone.utcnow() - run.start_date > limit)


def share(runs: Sequence[DagRun]) -> int:
    """Return how many runs of a loop must be examined, so that each is within LOOK_SECONDS.

    With many runs under way each loop has others: the longer a run waited for its turn, the rarer its turns are.
    """
    now = timezone.utcnow()
    waited = [(now - run.last_scheduling_decision).total_seconds() for run in runs if run.last_scheduling_decision]
    return math.ceil(math.fsum(waited) / LOOK_SECONDS)


def to_be_left_out(runs: Sequence[DagRun], dags: DBDagBag, session: Session) -> list[DagRun]:
    """Return those for which there is nothing to decide, but for the few whose turn it is to be examined.

    Args:
        runs: of these.
        dags: From which their DAGs are taken.
        session: with which the database is asked.
    """
    asked = {
        run.id: run
        for run in runs
        if run.last_scheduling_decision and ((look := _looks.get(run.id)) is None or look.tasks >= MANY)
    }
    if not asked:
        return []
    looked: dict[int, float] = {}
    for run_id, newest in settled(list(asked.values()), session).items():
        if not is_over(asked[run_id], newest, dags, session):
            looked[run_id] = look.at if (look := _looks.get(run_id)) else -math.inf
    overdue = [run_id for run_id, at in looked.items() if time.monotonic() - at > LOOK_SECONDS]
    for run_id in sorted(overdue, key=looked.__getitem__)[: share([asked[run_id] for run_id in looked])]:
        del looked[run_id]
    return [run for run_id, run in asked.items() if run_id in looked]


@functools.wraps(_decide)
def task_instance_scheduling_decisions(self: DagRun, *, session: Session = NEW_SESSION) -> Any:
    """As upstream's; remembers what it has seen."""
    decision = _decide(self, session=session)
    _looks[self.id] = Look(len(decision.tis), time.monotonic())
    return decision


@functools.wraps(_schedule)
def schedule_all_dag_runs(self: SchedulerJobRunner, guard: Any, dag_runs: Iterable[DagRun], session: Session) -> Any:
    """As upstream's, without the runs for which there is nothing to decide."""
    runs = list(dag_runs)
    out = to_be_left_out(runs, self.scheduler_dag_bag, session)
    for run in out:
        run.last_scheduling_decision = timezone.utcnow()  # it is others' turn
    return _schedule(self, guard, [run for run in runs if run not in out], session)


def apply() -> None:
    """Leave out runs with nothing to decide."""
    DagRun.task_instance_scheduling_decisions = task_instance_scheduling_decisions
    SchedulerJobRunner._schedule_all_dag_runs = schedule_all_dag_runs
