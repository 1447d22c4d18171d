"""Peak memory is the maximum of each service, not the memory at the time of the largest sum."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ops.bench import memory_load
from ops.errors import StackError


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Three readings during a run; the event is set with the last one."""
    last = threading.Event()
    rows = [{"worker": 10.0, "redis": 3.0}, {"worker": 30.0, "redis": 1.0}, {"worker": 20.0, "redis": 9.0, "new": 1.0}]

    def read(_containers: object) -> dict[str, float]:
        row = rows.pop(0)
        if not rows:
            rows.append(row)
            last.set()
        return row

    monkeypatch.setattr(memory_load.cgroup_usage, "running_containers", lambda _project: {})
    monkeypatch.setattr(memory_load.cgroup_usage, "read_usage", read)
    monkeypatch.setattr(memory_load.cgroup_usage, "memory_by_service", lambda row: row)
    monkeypatch.setattr(memory_load, "MIB", 1)
    monkeypatch.setattr(memory_load, "POLL_SECONDS", 0.001)
    return last


class Target:
    api = project = None


def test_peak_memory_is_each_services_own_maximum(readings: threading.Event, monkeypatch: pytest.MonkeyPatch):
    def run(*_arguments: Any) -> None:
        assert readings.wait(10)

    monkeypatch.setattr(memory_load, "run_and_wait", run)
    peak: Any = memory_load.peak_memory(Target, 16, print)  # type: ignore[arg-type]
    assert peak["MiB: worker"] == 30.0
    assert peak["MiB: redis"] == 9.0


def test_failed_run_gives_no_sample(readings: threading.Event, monkeypatch: pytest.MonkeyPatch):
    def run(*_arguments: Any) -> None:
        raise StackError("bench_ordinary failed")

    monkeypatch.setattr(memory_load, "run_and_wait", run)
    with pytest.raises(StackError, match="failed"):
        memory_load.peak_memory(Target, 16, print)  # type: ignore[arg-type]
