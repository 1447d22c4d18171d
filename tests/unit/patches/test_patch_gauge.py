"""Each process sends the state of its patches repeatedly; its forks send nothing and do not hang."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from airflow.observability import stats

from airflow_ha.patches import patch_gauge
from airflow_ha.patches.patch_state import State

REPORTING = """
import os, time
from airflow.observability import stats
from airflow_ha.patches.loader import State
from airflow_ha.patches import patch_gauge
patch_gauge.INTERVAL = 0.02
sent = []
stats.gauge = lambda name, value, tags: sent.append(os.getpid())
patch_gauge.report({"a": State("applied")})
deadline = time.monotonic() + 20
while len(sent) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
for _ in range(20):
    child = os.fork()
    if not child:
        patch_gauge.send({})
        os._exit(len(sent) - sent.count(os.getppid()))
    assert os.waitpid(child, 0)[1] == 0
print(len(sent) >= 3)
"""


def test_one_gauge_is_sent_per_patch(monkeypatch):
    sent = []
    monkeypatch.setattr(stats, "gauge", lambda name, value, tags: sent.append((name, value, tags)))
    patch_gauge.send({"a": State("applied"), "b": State("skipped", "changed")})
    assert sent == [
        ("ha_patch_state", 1, {"patch": "a", "state": "applied"}),
        ("ha_patch_state", 1, {"patch": "b", "state": "skipped"}),
    ]


def test_error_is_only_logged(monkeypatch, caplog):
    monkeypatch.setattr(stats, "gauge", lambda *_, **__: 1 / 0)
    patch_gauge.send({"a": State("applied")})
    assert "cannot send the state of the patches" in caplog.text


@pytest.mark.processes
def test_forks_of_a_reporting_process_end():
    process = subprocess.run(
        [sys.executable, "-c", REPORTING],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stdout.split()[-1:] == ["True"], process.stderr
