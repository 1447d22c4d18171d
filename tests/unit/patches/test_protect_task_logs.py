"""A process that runs DAG code cannot write to the folder of task logs; its supervisor can."""

from __future__ import annotations

import json

import pytest

from airflow_ha.patches import registry
from airflow_ha.task_process import landlock
from tests.unit.forks import in_forks
from tests.unit.patches.loading import applied

pytestmark = pytest.mark.processes

IMPORTS = """
import importlib, json, os, tempfile, uuid
from pathlib import Path
import structlog
from airflow.sdk.execution_time import supervisor
"""
RUN = """
logs = Path(tempfile.mkdtemp()) / "logs"
logs.mkdir()
{load}

def task():
    for name in ("others.log", "link"):
        try:
            (logs / name).symlink_to("/etc/hostname") if name == "link" else (logs / name).write_text("forged")
        except OSError:
            pass

process = supervisor.WatchedSubprocess.start(id=uuid.uuid4(), target=task, logger=structlog.get_logger())
os.waitpid(process.pid, 0)
(logs / "own.log").write_text("by the supervisor")
print(json.dumps(sorted(os.listdir(logs))))
"""
PATCH = """
patch = importlib.import_module("airflow_ha.patches.protect_task_logs")
patch.LOGS = logs
patch.apply()
"""


@pytest.fixture(scope="module")
def written():
    """The files that a task and its supervisor could write, with the patch and upstream."""
    return [json.loads(output) for output in in_forks(IMPORTS, [RUN.format(load=load) for load in (PATCH, "")])]


@pytest.mark.skipif(bool(landlock.obstacle()), reason=landlock.obstacle())
def test_task_cannot_write_logs_and_its_supervisor_can(written):
    assert written[0] == ["own.log"]


def test_upstream_lets_a_task_write_any_log(written):
    """If this fails, Airflow confines tasks: delete protect_task_logs and this file."""
    assert written[1] == ["link", "others.log", "own.log"]


def test_every_component_that_runs_dag_code_has_the_patch():
    (row,) = (patch for patch in registry.PATCHES if patch.name == "protect_task_logs")
    assert row.components == {"worker", "dag-processor", "triggerer"}


def test_kernel_that_cannot_confine_is_an_error(monkeypatch):
    monkeypatch.setattr(landlock, "obstacle", lambda: "Landlock has version 0 here")
    with pytest.raises(OSError, match="PATCHES_DISABLED=protect_task_logs"), applied("protect_task_logs"):
        pass
