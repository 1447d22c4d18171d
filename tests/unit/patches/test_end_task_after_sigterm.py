"""A task that receives SIGTERM calls its operator's `on_kill` and ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

TASK = """
import sys, time
from types import SimpleNamespace
import airflow.sdk.execution_time.task_runner as runner
runner._prepare = lambda *_: None  # renders templates, which does not concern signals
{load}
def execute(**_):
    while not on_kill_at or time.monotonic() < on_kill_at[0] + 0.5:
        print("works on" if on_kill_at else "works", flush=True)
        time.sleep(0.05)
    sys.exit(3)
runner._execute_task = execute
on_kill_at = []
def on_kill():
    print("on_kill", flush=True)
    on_kill_at.append(time.monotonic())
ti = SimpleNamespace(task=SimpleNamespace(on_kill=on_kill), _ti_context_from_server=None)
log = SimpleNamespace(**dict.fromkeys(["info", "error", "exception", "debug"], lambda *_, **__: None))
runner._handle_current_task_failed = lambda *_: sys.exit(3)
runner._run_task_and_map_outcome(ti, {{}}, log)
"""


def terminate_task(load: str) -> tuple[int, list[str]]:
    """Return the exit code and output of a task process that receives SIGTERM while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", TASK.format(load=load)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if line == "works\n":
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert "on_kill" in output, errors
    return process.returncode, output[output.index("on_kill") :].splitlines()


def test_signal_ends_the_process_after_on_kill():
    code, output = terminate_task("from airflow_ha.patches import end_task_after_sigterm as patch; patch.apply()")
    assert (code, output) == (-signal.SIGTERM, ["on_kill"])


def test_upstream_continues_after_on_kill():
    """If this fails, https://github.com/apache/airflow/issues/73006 is fixed: delete the patch."""
    code, output = terminate_task("")
    assert code != -signal.SIGTERM
    assert "works on" in output
