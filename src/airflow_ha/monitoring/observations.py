"""The observed state of Airflow, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True)
class Runs:
    """The number of runs that ended in the window.

    Attributes:
        success: the number of successful runs.
        failed: the number of failed runs.
        latest_failed: id of the failed run that ended last.
    """

    success: int
    failed: int
    latest_failed: str | None = None

    @property
    def ended(self) -> int:
        """The number of successful and failed runs."""
        return self.success + self.failed

    @property
    def failure_ratio(self) -> float:
        """The share of failed runs; 0 if no run ended."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(frozen=True)
class FailingTask:
    """A task with failed instances in the window."""

    dag_id: str
    task_id: str
    failed: int


@dataclass(frozen=True)
class Job:
    """The job of a scheduler, dag-processor or triggerer.

    Attributes:
        component: name of the compose service.
        hostname: of its container.
        running: whether its state is `running`; a killed process keeps this state.
        started: start time.
        heartbeat: time of the last heartbeat.
    """

    component: str
    hostname: str
    running: bool
    started: datetime
    heartbeat: datetime


@dataclass(frozen=True)
class Pool:
    """A pool; -1 slots means unlimited."""

    name: str
    slots: int
    open: int
    scheduled: int

    @property
    def is_starving(self) -> bool:
        """Whether tasks wait for a slot and no slot is free."""
        return self.slots >= 0 and self.open <= 0 and self.scheduled > 0


@dataclass(frozen=True)
class QueuedTask:
    """A task instance that the executor has queued and no worker runs."""

    id: str
    dag_id: str
    task_id: str
    run_id: str
    queue: str
    queued: datetime


@dataclass(frozen=True)
class ScheduledTask:
    """A task instance whose dependencies are met and that no scheduler has queued yet."""

    dag_id: str
    task_id: str
    run_id: str
    pool: str
    pool_slots: int
    scheduled: datetime


DUE_GRACE = 30.0
"""Seconds after the due time within which a healthy scheduler creates the run, with a margin."""


@dataclass(frozen=True)
class DueDag:
    """An unpaused DAG with a schedule.

    Attributes:
        dag_id: its id.
        due: when its next run may be created.
        held_back: whether it has reached `max_active_runs`.
    """

    dag_id: str
    due: datetime
    held_back: bool = False

    def seconds_late(self, at: datetime) -> float:
        """Return the seconds past the due time; 0 if it is not due or is held back."""
        return 0.0 if self.held_back else max(0.0, (at - self.due).total_seconds())


@dataclass(frozen=True)
class ImportProblem:
    """A DAG file that does not import, and the last line of its error."""

    file: str
    error: str


@dataclass(frozen=True)
class Observations:
    """The observations of one check.

    Attributes:
        at: time of the check.
        all_runs: runs of all DAGs together.
        runs: runs by DAG, for DAGs with failed runs.
        healthy_dags: DAGs whose latest run succeeded and that have no failed run.
        failing_tasks: those with the most failures first.
        jobs: those with the newest heartbeats.
        pools: all pools.
        queued: those of the oldest runs first.
        scheduled: those of unpaused DAGs, the oldest runs first.
        blocked_dags: unpaused DAGs whose `max_active_tasks` is 0.
        running: the number of running task instances by worker.
        due: the unpaused DAGs with a schedule.
        import_problems: all files that do not import.
        truncated: API paths whose lists were too long to read completely.
    """

    at: datetime
    all_runs: Runs = Runs(0, 0)
    runs: Mapping[str, Runs] = field(default_factory=dict)
    healthy_dags: frozenset[str] = frozenset()
    failing_tasks: tuple[FailingTask, ...] = ()
    jobs: tuple[Job, ...] = ()
    pools: tuple[Pool, ...] = ()
    queued: tuple[QueuedTask, ...] = ()
    scheduled: tuple[ScheduledTask, ...] = ()
    blocked_dags: frozenset[str] = frozenset()
    running: Mapping[str, int] = field(default_factory=dict)
    due: tuple[DueDag, ...] = ()
    import_problems: tuple[ImportProblem, ...] = ()
    truncated: tuple[str, ...] = ()
