"""`execution_timeout` counts the time in which a task runs, not the time in which it is suspended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.processes

TIMEOUT, SUSPENDED = 2.0, 2.5
SUPERVISOR = """
import os, signal, sys, time
import airflow.sdk.execution_time.timeout as upstream
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow_ha.task_process import suspension
{load}
timeout, suspended = {timeout}, {suspended}
child = os.fork()
if not child:
    begun, code = time.monotonic(), 0
    try:
        with upstream.timeout(timeout):
            os.write(1, b"begun\\n")
            while True:
                time.sleep(60)
    except AirflowTaskTimeout:
        print(time.monotonic() - begun, flush=True)
    os._exit(0)
os.write(1, b"%d\\n" % child)
for line in sys.stdin:
    since = time.monotonic()
    os.kill(child, signal.SIGSTOP)
    while time.monotonic() < since + suspended:
        time.sleep(0.01)
    suspension.add_held(time.monotonic() - since)
    os.kill(child, signal.SIGCONT)
    break
os.waitpid(child, 0)
"""
"""Like heartbeat_lease.py: the held time is recorded before the task is resumed."""
PATCH = "from airflow_ha.patches import hold_execution_timeout; hold_execution_timeout.apply()"


def seconds_until_timeout(load: str, *, suspended: float) -> float:
    """Return the seconds until a task's timeout, of which it is suspended for some."""
    script = SUPERVISOR.format(load=load, timeout=TIMEOUT, suspended=suspended)
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    lines = sorted([process.stdout.readline().strip(), process.stdout.readline().strip()])
    assert lines[1] == "begun"
    if suspended:
        process.stdin.write("suspend\n")
    output, _ = process.communicate(timeout=60)
    return float(output.splitlines()[-1])


def test_suspended_task_keeps_its_remaining_time():
    seconds = seconds_until_timeout(PATCH, suspended=SUSPENDED)
    assert TIMEOUT + SUSPENDED <= seconds < TIMEOUT + 2 * SUSPENDED, "the suspension counts once"


def test_task_without_suspension_has_its_full_time():
    assert TIMEOUT <= seconds_until_timeout(PATCH, suspended=0.0) < TIMEOUT + SUSPENDED


def test_upstream_timer_runs_during_a_suspension():
    """If this fails, upstream is fixed: delete airflow_ha.patches.hold_execution_timeout and this file."""
    assert seconds_until_timeout("", suspended=SUSPENDED) < TIMEOUT + SUSPENDED


@pytest.fixture
def held(monkeypatch):
    """A timeout that starts now, and the held seconds of its supervisor."""
    from airflow_ha.patches import hold_execution_timeout

    shared = [10.0]
    monkeypatch.setattr(hold_execution_timeout.suspension, "held_seconds", lambda: shared[0])
    before = signal.getsignal(signal.SIGALRM)
    with hold_execution_timeout.SuspendableTimeout(0.2) as timer:
        yield timer, shared
    signal.signal(signal.SIGALRM, before)


def test_suspension_before_the_timer_expires_counts(held):
    from airflow.sdk.exceptions import AirflowTaskTimeout

    timer, shared = held
    shared[0] += 0.3
    with pytest.raises(AirflowTaskTimeout):
        time.sleep(5)  # the handler raises
    assert 0.5 <= time.monotonic() - timer._started < 5
