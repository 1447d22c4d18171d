"""A worker that lost its broker keeps the list of busy pool processes."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest
from celery.concurrency.asynpool import RUN

from airflow_ha.patches import celery_pool_flush


class Process:
    def __init__(self, writer: int, *, alive: bool = True) -> None:
        self.inqW_fd = writer
        self.alive = alive

    def _is_alive(self) -> bool:
        return self.alive


class Job:
    def __init__(self, process: Process, *, accepted: bool) -> None:
        self._accepted = accepted
        self._write_to = self._scheduled_for = process
        self._writer = lambda: None


@pytest.fixture
def pool():
    """The attributes of a pool that `flush` uses: process 1 runs a task, 2 has not started its task, 3 exited."""
    jobs = {
        "runs": Job(Process(1), accepted=True),
        "waits": Job(Process(2), accepted=False),
        "died": Job(Process(3, alive=False), accepted=True),
    }
    for name, job in jobs.items():
        job.discard = lambda name=name: jobs.pop(name)
    return SimpleNamespace(
        _state=RUN,
        _cache=jobs,
        synack=False,
        outbound_buffer=deque(["message"]),
        _active_writers=set(),
        _active_writes=set(),
        _busy_workers={1, 2, 3},
        maintain_pool=lambda: None,
    )


def test_process_that_runs_a_task_stays_busy(pool):
    celery_pool_flush.flush(pool)
    assert pool._busy_workers == {1}
    assert not pool.outbound_buffer


def test_upstream_forgets_busy_processes(pool):
    celery_pool_flush._flush(pool)
    assert not pool._busy_workers, "upstream is fixed: delete src/airflow_ha/patches/celery_pool_flush.py"


def test_free_process_stays_free(pool):
    pool._busy_workers.clear()
    celery_pool_flush.flush(pool)
    assert not pool._busy_workers
