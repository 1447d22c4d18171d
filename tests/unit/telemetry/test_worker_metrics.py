"""What a Celery worker tells about itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.observability import stats

from airflow_ha.patches import patch_gauge
from airflow_ha.telemetry import worker_metrics


class Timer:
    def __init__(self):
        self.calls, self.cancelled = [], False

    def call_repeatedly(self, seconds, function, args):
        self.calls.append((seconds, function, args))
        return self

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(stats, "initialize", lambda **_: None)
    monkeypatch.setattr(stats, "incr", lambda name: told.append((name, 1)))
    monkeypatch.setattr(stats, "gauge", lambda name, value: told.append((name, value)))
    return told


@pytest.fixture
def consumer():
    return SimpleNamespace(pool=SimpleNamespace(num_processes=8), timer=Timer())


def test_a_worker_tells_that_it_lives_its_slots_and_how_many_are_taken(told, consumer, monkeypatch):
    monkeypatch.setattr(worker_metrics.state, "active_requests", {"a", "b", "c"})
    worker_metrics.tell(consumer)
    assert told[:3] == [("ha_worker_heartbeat", 1), ("ha_worker_slots", 8), ("ha_worker_busy_slots", 3)]


def test_a_worker_reports_how_many_of_its_tasks_are_suspended(told, consumer, monkeypatch):
    monkeypatch.setattr(worker_metrics, "blocked_slots", lambda: 2)
    worker_metrics.tell(consumer)
    assert ("ha_suspended_tasks", 2) in told


def test_a_worker_tells_how_full_the_disk_of_its_logs_is(told, consumer, monkeypatch):
    asked = []
    monkeypatch.setattr(worker_metrics.conf, "get", lambda *names: asked.append(names) or "/logs")
    usage = {"/logs": SimpleNamespace(total=100, used=60, free=20)}
    monkeypatch.setattr(worker_metrics.shutil, "disk_usage", usage.__getitem__)
    worker_metrics.tell(consumer)
    assert asked == [("logging", "base_log_folder")]
    assert told[-1] == ("ha_disk_used_ratio", 0.75)


def test_a_worker_tells_every_five_seconds_until_its_consumer_ends(told, consumer):
    step = worker_metrics.WorkerMetrics(consumer)
    step.start(consumer)
    assert told[0] == ("ha_worker_heartbeat", 1)
    assert consumer.timer.calls[0] == (5.0, worker_metrics.tell, (consumer,))
    assert consumer.timer.calls[1][:2] == (30.0, patch_gauge.send)
    step.stop(consumer)
    assert consumer.timer.cancelled


def test_nothing_that_goes_wrong_stops_the_worker(told, caplog):
    worker_metrics.tell(SimpleNamespace(pool=None))
    assert "not sent" in caplog.text
