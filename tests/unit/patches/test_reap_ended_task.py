"""A worker's slot is released when its task ends, not `[workers] min_heartbeat_interval` later."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time

import psutil
import pytest

from tests.unit.patches.loading import applied


@pytest.fixture(scope="module")
def supervisor():
    """Upstream's supervisor module with the patch, as in a worker."""
    import airflow.sdk.execution_time.supervisor as module

    with applied("reap_ended_task"):
        yield module


@pytest.fixture
def ending(supervisor, monkeypatch):
    """A supervised process that ends 0.3 s after its sockets closed, and the timeouts of its selects."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    watched = object.__new__(supervisor.WatchedSubprocess)
    waits: list[float | None] = []

    class Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            waits.append(timeout)
            return super().select(timeout)

    for name, value in {
        "_process": supervisor.PsutilTracker(psutil.Process(process.pid)),
        "_exit_code": None,
        "_process_exit_monotonic": None,
        "_open_sockets": {},
        "selector": Selector(),
        "id": "a-task",
        "subprocess_logs_to_stdout": False,
    }.items():
        object.__setattr__(watched, name, value)
    yield watched, waits
    process.wait()


def supervise(watched, service, interval: float) -> float:
    """Return the seconds until a loop like `_monitor_subprocess` notices the exit."""
    started = time.monotonic()
    while watched._exit_code is None:
        service(watched, interval)
    return time.monotonic() - started


def test_process_exit_is_noticed_at_once(supervisor, ending):
    watched, waits = ending
    seconds = supervise(watched, supervisor.WatchedSubprocess._service_subprocess, 60.0)
    assert watched._exit_code == 0
    assert max(waits) <= 0.01
    assert seconds < 60.0


def test_upstream_sleeps_the_whole_interval(ending):
    """If this fails, upstream is fixed: delete airflow_ha.patches.reap_ended_task and this file."""
    from airflow_ha.patches import reap_ended_task

    watched, waits = ending
    seconds = supervise(watched, reap_ended_task._service_subprocess, 1.5)
    assert waits[0] == 1.5
    assert seconds >= 1.5


def test_open_socket_keeps_the_wait_of_upstream(supervisor, ending):
    watched, waits = ending
    reading, writing = os.pipe()
    watched._open_sockets[reading] = "requests"
    supervisor.WatchedSubprocess._service_subprocess(watched, 0.4)
    os.close(reading)
    os.close(writing)
    assert waits == [0.4]
