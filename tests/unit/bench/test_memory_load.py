"""Memory under a load: the most that each service held at any moment, not the sum at the busiest one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ops.bench import memory_load
from ops.errors import StackError


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Three readings while a run is under way; the event is set once the last was taken."""
    last = threading.Event()
    rows = [{"worker": 10.0, "redis": 3.0}, {"worker": 30.0, "redis": 1.0}, {"worker": 20.0, "redis": 9.0, "new": 1.0}]

    def read(_containers: object) -> dict[str, float]:
        row = rows.pop(0)
        if not rows:
            rows.append(row)
            last.set()
        return row

    monkeypatch.setattr(memory_load.cgroup_usage, "containers", lambda _project: {})
    monkeypatch.setattr(memory_load.cgroup_usage, "read", read)
    monkeypatch.setattr(memory_load.cgroup_usage, "memory", lambda row: row)
    monkeypatch.setattr(memory_load, "MIB", 1)
    monkeypatch.setattr(memory_load, "POLL_SECONDS", 0.001)
    return last


class Side:
    api = project = None


def test_most_held_is_each_services_own_peak(readings: threading.Event, monkeypatch: pytest.MonkeyPatch):
    def run(*_arguments: Any) -> None:
        assert readings.wait(10)

    monkeypatch.setattr(memory_load, "run_to_end", run)
    most: Any = memory_load.most_held(Side, 16, print)  # type: ignore[arg-type]
    assert most["MiB: worker"] == 30.0
    assert most["MiB: redis"] == 9.0


def test_a_failed_run_is_no_measurement(readings: threading.Event, monkeypatch: pytest.MonkeyPatch):
    def run(*_arguments: Any) -> None:
        raise StackError("bench_ordinary has failed")

    monkeypatch.setattr(memory_load, "run_to_end", run)
    with pytest.raises(StackError, match="has failed"):
        memory_load.most_held(Side, 16, print)  # type: ignore[arg-type]
