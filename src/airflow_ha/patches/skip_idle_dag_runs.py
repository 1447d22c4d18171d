"""A scheduler looks at all the tasks of a large run only when there may be something to decide for one of them.

The fault, in Airflow 3.3.2's `airflow.jobs.scheduler_job_runner`: in each of its rounds a scheduler loads every task of
every run under way, of a run of a thousand a thousand rows of sixty columns, to see which may begin and whether the run
has ended. Where all that is left of a run waits for a slot or runs, nothing comes of it. With ten such runs a round
takes a second, and everybody else's runs wait for it.

The work-round: for which runs there is nothing to decide a scheduler first asks the database, in one query, and leaves
those out of the round. There is something when a task has not been scheduled yet, waits for its next attempt or its
next look, or when none is left; when the DAG has another version; and when the run's `dagrun_timeout` is over. That
nothing else matters is not relied on: each scheduler looks at all the tasks of every run once, and again every
LOOK_SECONDS, but in a round at those of one such run at most.

Upstream's issue is https://github.com/apache/airflow/issues/31185, open. It can go when the test in
`test_settled_run.py` that names upstream fails. Loaded by schedulers with Celery's settings
(airflow_ha/celery_config.py).
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
from sqlalchemy import Select, func, or_, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

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
        version: of its DAG, the newest; None of a run of few tasks.
        timeout: when the run's time is over.
        at: when that was, by the monotonic clock.
    """

    tasks: int
    version: int | None
    timeout: datetime | None
    at: float

    def still_holds(self, version: int | None) -> bool:
        """Whether the DAG has no other version, and the run has time left."""
        return version == self.version and (self.timeout is None or timezone.utcnow() < self.timeout)


_looks: LRUCache[int, Look] = LRUCache(RUNS)
"""By the run's id."""

_decide: Any = DagRun.task_instance_scheduling_decisions
_schedule: Any = SchedulerJobRunner._schedule_all_dag_runs


def newest_version(dag_id: Any) -> Select[tuple[int | None]]:
    """Asks for the number of a DAG's newest version."""
    return select(func.max(DagVersion.version_number)).where(DagVersion.dag_id == dag_id)


def settled(runs: Sequence[DagRun], session: Session) -> dict[int, int | None]:
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
    newest = newest_version(DagRun.dag_id).scalar_subquery()
    found = select(DagRun.id, newest).where(DagRun.id.in_([run.id for run in runs]), left, ~undecided)
    return dict(session.execute(found).tuples().all())


def to_be_left_out(runs: Sequence[DagRun], session: Session) -> list[DagRun]:
    """Those for which there is nothing to decide, but for one whose turn it is to be looked at.

    Args:
        runs: of these.
        session: with which the database is asked.
    """
    asked = [
        run
        for run in runs
        if run.last_scheduling_decision and ((look := _looks.get(run.id)) is None or look.tasks >= MANY)
    ]
    if not asked:
        return []
    looked: dict[int, float] = {}
    for run_id, version in settled(asked, session).items():
        look = _looks.get(run_id)
        if look is None or look.still_holds(version):
            looked[run_id] = look.at if look else -math.inf
    longest_ago = min(looked, key=looked.__getitem__, default=None)
    if longest_ago is not None and time.monotonic() - looked[longest_ago] > LOOK_SECONDS:
        del looked[longest_ago]
    return [run for run in asked if run.id in looked]


@functools.wraps(_decide)
def task_instance_scheduling_decisions(self: DagRun, *, session: Session = NEW_SESSION) -> Any:
    """As upstream's; remembers what it has seen."""
    decision = _decide(self, session=session)
    tasks, version, timeout = len(decision.tis), None, None
    if tasks >= MANY:
        version = session.scalar(newest_version(self.dag_id))
        limit = self.get_dag().dagrun_timeout
        timeout = self.start_date + limit if limit and self.start_date else None
    _looks[self.id] = Look(tasks, version, timeout, time.monotonic())
    return decision


@functools.wraps(_schedule)
def schedule_all_dag_runs(self: SchedulerJobRunner, guard: Any, dag_runs: Iterable[DagRun], session: Session) -> Any:
    """As upstream's, without the runs for which there is nothing to decide."""
    runs = list(dag_runs)
    out = to_be_left_out(runs, session)
    for run in out:
        run.last_scheduling_decision = timezone.utcnow()  # it is others' turn
    return _schedule(self, guard, [run for run in runs if run not in out], session)


def apply() -> None:
    """Leave out runs with nothing to decide."""
    DagRun.task_instance_scheduling_decisions = task_instance_scheduling_decisions
    SchedulerJobRunner._schedule_all_dag_runs = schedule_all_dag_runs
