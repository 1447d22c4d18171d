"""A worker's record that it consumes is made while it does, and by nobody else."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous.timer import Timer

from airflow_ha.health import consumption_record


@pytest.fixture
def file(monkeypatch, tmp_path):
    """Where the record goes, many times a second."""
    path = tmp_path / "consumption"
    monkeypatch.setattr(consumption_record, "CONSUMPTION_INTERVAL", 0.01)
    monkeypatch.setattr(consumption_record, "CONSUMPTION_FILE", path)
    return path


def consumer(queues: tuple[str, ...] = ("default",)):
    """A Celery consumer that takes messages from these queues, on kombu's own timer."""
    channel = SimpleNamespace(active_queues=set(queues))
    channel.connection = SimpleNamespace(cycle=SimpleNamespace(_channels=[channel]))
    return SimpleNamespace(
        connection=SimpleNamespace(connected=True),
        task_consumer=SimpleNamespace(channel=channel, queues=[SimpleNamespace(name=name) for name in queues]),
        timer=Timer(),
    )


def run_what_comes_due(timer: Timer) -> bool:
    """Runs the timer's next entry when its time has come, as the worker's loop does; False when there is none."""
    for seconds, entry in timer:
        if entry:
            entry()
            return True
        if seconds is None:
            return False
        time.sleep(seconds)
    return False


def test_a_worker_that_has_subscribed_makes_its_record_at_once_and_again_and_again(file):
    worker = consumer(("default", "gpu"))
    consumption_record.ConsumptionRecord(worker).start(worker)
    assert file.read_text() == "default\ngpu\n"
    for _ in range(2):
        file.unlink()
        assert run_what_comes_due(worker.timer)
        assert file.exists()


def test_a_worker_without_its_queues_makes_no_record_though_its_timer_runs(file):
    worker = consumer(())
    consumption_record.ConsumptionRecord(worker).start(worker)
    assert run_what_comes_due(worker.timer)
    assert not file.exists()


def test_a_worker_that_lost_its_connection_makes_no_record_any_more(file):
    worker = consumer()
    step = consumption_record.ConsumptionRecord(worker)
    step.start(worker)
    file.unlink()
    step.stop(worker)
    assert not run_what_comes_due(worker.timer)
    assert not file.exists()
    step.stop(worker)  # Celery says it again when the worker ends


def test_celery_loads_it_into_every_worker_after_the_queues():
    from celery import current_app

    assert consumption_record.ConsumptionRecord in current_app.steps["consumer"]
    assert consumption_record.ConsumptionRecord.requires == ("celery.worker.consumer.tasks:Tasks",)
