"""A Celery worker's own metrics."""

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
def sent(monkeypatch):
    sent = []
    monkeypatch.setattr(stats, "initialize", lambda **_: None)
    monkeypatch.setattr(stats, "incr", lambda name: sent.append((name, 1)))
    monkeypatch.setattr(stats, "gauge", lambda name, value: sent.append((name, value)))
    return sent


@pytest.fixture
def consumer():
    return SimpleNamespace(pool=SimpleNamespace(num_processes=8), timer=Timer())


def test_worker_reports_heartbeat_slots_and_busy_slots(sent, consumer, monkeypatch):
    monkeypatch.setattr(worker_metrics.state, "active_requests", {"a", "b", "c"})
    worker_metrics.report(consumer)
    assert sent[:3] == [("ha_worker_heartbeat", 1), ("ha_worker_slots", 8), ("ha_worker_busy_slots", 3)]


def test_worker_reports_its_suspended_tasks(sent, consumer, monkeypatch):
    monkeypatch.setattr(worker_metrics, "blocked_slots", lambda: 2)
    worker_metrics.report(consumer)
    assert ("ha_suspended_tasks", 2) in sent


def test_worker_reports_the_disk_usage_of_its_logs(sent, consumer, monkeypatch):
    settings = []
    monkeypatch.setattr(worker_metrics.conf, "get", lambda *names: settings.append(names) or "/logs")
    usage = {"/logs": SimpleNamespace(total=100, used=60, free=20)}
    monkeypatch.setattr(worker_metrics.shutil, "disk_usage", usage.__getitem__)
    worker_metrics.report(consumer)
    assert settings == [("logging", "base_log_folder")]
    assert sent[-1] == ("ha_disk_used_ratio", 0.75)


def test_worker_reports_every_5_s_until_its_consumer_stops(sent, consumer):
    step = worker_metrics.WorkerMetrics(consumer)
    step.start(consumer)
    assert sent[0] == ("ha_worker_heartbeat", 1)
    assert consumer.timer.calls[0] == (5.0, worker_metrics.report, (consumer,))
    assert consumer.timer.calls[1][:2] == (30.0, patch_gauge.send)
    step.stop(consumer)
    assert consumer.timer.cancelled


def test_error_in_a_report_does_not_stop_the_worker(sent, caplog):
    worker_metrics.report(SimpleNamespace(pool=None))
    assert "metrics" in caplog.text
