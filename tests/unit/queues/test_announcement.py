"""A worker announces its queues while it consumes them."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous.timer import Timer

from airflow_ha.queues import announcement, queue_registry


def consumer(queues: tuple[str, ...]):
    """Return a fake Celery consumer of these queues, with a real timer of kombu."""
    channel = SimpleNamespace(active_queues=set(queues), conn_or_acquire=lambda: contextlib.nullcontext("client"))
    channel.connection = SimpleNamespace(cycle=SimpleNamespace(_channels=[channel]))
    return SimpleNamespace(
        connection=SimpleNamespace(connected=True),
        task_consumer=SimpleNamespace(channel=channel, queues=[SimpleNamespace(name=name) for name in queues]),
        timer=Timer(),
        hostname="celery@a",
        pool=SimpleNamespace(num_processes=8),
    )


def run_due(timer: Timer, seconds: float = 0.1) -> None:
    """Run the due entries for some time, as the worker's loop does."""
    deadline = time.monotonic() + seconds
    for wait, entry in timer:
        if entry:
            entry()
        elif time.monotonic() + (wait or seconds) > deadline:
            return
        else:
            time.sleep(wait)


@pytest.fixture
def announced(monkeypatch):
    """The announcements, which come many times a second."""
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(queue_registry, "ANNOUNCE_SECONDS", 0.03)
    monkeypatch.setattr(
        queue_registry, "announce", lambda client, worker, slots, queues: made.append((worker, slots, *queues))
    )
    return made


def test_worker_announces_its_queues_repeatedly(announced):
    worker = consumer(("default", "gpu"))
    announcement.Announcement(worker).start(worker)
    assert announced == []  # it has not subscribed yet
    run_due(worker.timer)
    assert len(announced) >= 2
    assert set(announced) == {("celery@a", 8, "default", "gpu")}


def test_worker_that_does_not_consume_announces_nothing(announced):
    worker = consumer(())
    announcement.Announcement(worker).start(worker)
    run_due(worker.timer)
    assert announced == []


def test_worker_that_lost_its_connection_announces_nothing(announced):
    worker = consumer(("default",))
    step = announcement.Announcement(worker)
    step.start(worker)
    step.stop(worker)
    run_due(worker.timer)
    assert announced == []


def test_redis_outage_does_not_stop_the_worker(announced, monkeypatch):
    def refuse(client, worker, slots, queues):
        announced.append(worker)
        raise ConnectionError("no Redis")

    monkeypatch.setattr(queue_registry, "announce", refuse)
    worker = consumer(("default",))
    announcement.Announcement(worker).start(worker)
    run_due(worker.timer)
    assert len(announced) >= 2
