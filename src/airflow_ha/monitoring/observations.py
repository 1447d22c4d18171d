"""What a check saw of Airflow, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True)
class Runs:
    """How many runs have ended in the window.

    Attributes:
        success: how many succeeded.
        failed: how many failed.
        latest_failed: the run id of the failed one that ended last.
    """

    success: int
    failed: int
    latest_failed: str | None = None

    @property
    def ended(self) -> int:
        """All of them."""
        return self.success + self.failed

    @property
    def failure_ratio(self) -> float:
        """The share that failed, 0 when none has ended."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(frozen=True)
class FailingTask:
    """A task with failed instances in the window, and the run of the latest."""

    dag_id: str
    task_id: str
    failed: int
    latest_run: str


@dataclass(frozen=True)
class Job:
    """A scheduler, dag-processor or triggerer.

    Attributes:
        component: as in compose.
        hostname: its container.
        running: whether it has not said that it ended.
        started: when.
        heartbeat: its last sign of life.
    """

    component: str
    hostname: str
    running: bool
    started: datetime
    heartbeat: datetime


@dataclass(frozen=True)
class Pool:
    """A pool: -1 slots are endlessly many."""

    name: str
    slots: int
    open: int
    scheduled: int

    @property
    def starving(self) -> bool:
        """Whether tasks wait for a slot and there is none."""
        return self.slots >= 0 and self.open <= 0 and self.scheduled > 0


@dataclass(frozen=True)
class QueuedTask:
    """A task instance that the executor has and no worker runs."""

    id: str
    dag_id: str
    task_id: str
    run_id: str
    queue: str
    queued: datetime


@dataclass(frozen=True)
class ScheduledTask:
    """A task instance whose dependencies are met, and that no scheduler has queued yet."""

    dag_id: str
    task_id: str
    run_id: str
    pool: str
    pool_slots: int
    scheduled: datetime


DUE_GRACE = 30.0
"""Seconds past its due time in which a DAG's run is made when all is well, and to spare."""


@dataclass(frozen=True)
class DueDag:
    """A DAG that is on and has a schedule.

    Attributes:
        dag_id: its id.
        due: when its next run may be created.
        held_back: whether it has as many runs as it may have at a time.
    """

    dag_id: str
    due: datetime
    held_back: bool = False

    def late(self, at: datetime) -> float:
        """Seconds past its due time; 0 when it is not, or is held back."""
        return 0.0 if self.held_back else max(0.0, (at - self.due).total_seconds())


@dataclass(frozen=True)
class ImportProblem:
    """A DAG file that does not import, and the last line of why."""

    file: str
    error: str


@dataclass(frozen=True)
class Observations:
    """All that one check saw.

    Attributes:
        at: when.
        all_runs: of all DAGs together.
        runs: by DAG, those with failed runs.
        well: DAGs whose latest run succeeded, and of which no run failed.
        failing_tasks: the most failed first.
        jobs: those with the newest heartbeats.
        pools: all.
        queued: the oldest runs' first.
        scheduled: of DAGs that are on, the oldest runs' first.
        blocked_dags: DAGs that are on and whose `max_active_tasks` is 0.
        running: how many task instances run, by worker.
        due: the DAGs that are on and have a schedule.
        import_problems: all.
        cut: what was too long to be read to its end.
    """

    at: datetime
    all_runs: Runs = Runs(0, 0)
    runs: Mapping[str, Runs] = field(default_factory=dict)
    well: frozenset[str] = frozenset()
    failing_tasks: tuple[FailingTask, ...] = ()
    jobs: tuple[Job, ...] = ()
    pools: tuple[Pool, ...] = ()
    queued: tuple[QueuedTask, ...] = ()
    scheduled: tuple[ScheduledTask, ...] = ()
    blocked_dags: frozenset[str] = frozenset()
    running: Mapping[str, int] = field(default_factory=dict)
    due: tuple[DueDag, ...] = ()
    import_problems: tuple[ImportProblem, ...] = ()
    cut: tuple[str, ...] = ()
