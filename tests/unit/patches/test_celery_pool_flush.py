"""A worker that lost its broker still knows which of its processes are at work."""

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
    """What `flush` reads of a pool: process 1 runs a task, 2 has not begun its, 3 died of its."""
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


def test_a_process_that_runs_a_task_is_given_no_other_after_the_broker_was_away(pool):
    celery_pool_flush.flush(pool)
    assert pool._busy_workers == {1}
    assert not pool.outbound_buffer


def test_upstream_forgets_it(pool):
    celery_pool_flush._flush(pool)
    assert not pool._busy_workers, "upstream has fixed it: src/airflow_ha/patches/celery_pool_flush.py can go"


def test_a_process_that_was_free_stays_free(pool):
    pool._busy_workers.clear()
    celery_pool_flush.flush(pool)
    assert not pool._busy_workers
