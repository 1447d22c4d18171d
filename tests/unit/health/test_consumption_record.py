"""A worker writes its record while it consumes, and only then."""

from __future__ import annotations

import importlib
import os
import time
from types import SimpleNamespace

import pytest
from celery.signals import worker_shutting_down
from kombu.asynchronous.timer import Timer

from airflow_ha.health import consumption_record


@pytest.fixture
def file(monkeypatch, tmp_path):
    """The file of the record, which is written many times a second."""
    path = tmp_path / "consumption"
    monkeypatch.setattr(consumption_record, "CONSUMPTION_INTERVAL", 0.01)
    monkeypatch.setattr(consumption_record, "CONSUMPTION_FILE", path)
    return path


def consumer(queues: tuple[str, ...] = ("default",)):
    """Return a fake Celery consumer of these queues, with a real timer of kombu."""
    channel = SimpleNamespace(active_queues=set(queues))
    channel.connection = SimpleNamespace(cycle=SimpleNamespace(_channels=[channel]))
    return SimpleNamespace(
        connection=SimpleNamespace(connected=True),
        task_consumer=SimpleNamespace(channel=channel, queues=[SimpleNamespace(name=name) for name in queues]),
        timer=Timer(),
    )


def run_next(timer: Timer) -> bool:
    """Run the timer's next entry when it is due, as the worker's loop does; return False if there is none."""
    for seconds, entry in timer:
        if entry:
            entry()
            return True
        if seconds is None:
            return False
        time.sleep(seconds)
    return False


def test_subscribed_worker_writes_its_record_repeatedly(file):
    worker = consumer(("default", "gpu"))
    consumption_record.ConsumptionRecord(worker).start(worker)
    assert file.read_text() == "default\ngpu\n"
    for _ in range(2):
        file.unlink()
        assert run_next(worker.timer)
        assert file.exists()


def test_worker_without_queues_writes_no_record(file):
    worker = consumer(())
    consumption_record.ConsumptionRecord(worker).start(worker)
    assert run_next(worker.timer)
    assert not file.exists()


def test_worker_that_lost_its_connection_writes_no_record(file):
    worker = consumer()
    step = consumption_record.ConsumptionRecord(worker)
    step.start(worker)
    file.unlink()
    step.stop(worker)
    assert not run_next(worker.timer)
    assert not file.exists()
    step.stop(worker)  # Celery calls it again when the worker stops


@pytest.mark.parametrize(("age", "recorded"), [(5.0, True), (31.0, False), (None, False)])
def test_stop_is_recorded_only_by_a_worker_that_consumed(file, monkeypatch, tmp_path, age, recorded):
    stopping = tmp_path / "stopping"
    monkeypatch.setattr(consumption_record, "STOPPING_FILE", stopping)
    if age is not None:
        file.touch()
        os.utime(file, (0, time.time() - age))
    worker_shutting_down.send(sender="worker@host", sig="SIGTERM", how="Warm", exitcode=0)
    assert stopping.exists() is recorded


def test_celery_starts_the_record_after_the_queues():
    from celery import current_app

    # Another test may have made its own application the current one since the first import.
    importlib.reload(consumption_record)
    assert consumption_record.ConsumptionRecord in current_app.steps["consumer"]
    assert consumption_record.ConsumptionRecord.requires == ("celery.worker.consumer.tasks:Tasks",)
