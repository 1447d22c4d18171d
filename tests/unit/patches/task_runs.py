"""Tasks that run under the supervisor with the patches, each in its own fork: scripts of their functions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.unit.forks import in_forks

if TYPE_CHECKING:
    from collections.abc import Mapping

IMPORTS = """
import ctypes, json, multiprocessing, os, resource, signal, subprocess, sys, tempfile, threading, time, uuid
from pathlib import Path
from types import SimpleNamespace
import airflow.executors.workloads
from airflow.sdk.execution_time import coordinator, supervisor, task_runner
"""
RUN = """
home = Path(tempfile.mkdtemp())
os.environ["AIRFLOW_HA_SCRATCH"] = str(home / "scratch")
for name in ("scratch", "dags", "logs", "artifacts"):
    (home / name).mkdir()
(home / "dags/query.sql").write_text("select 1")
{load}
from airflow.sdk.api.datamodels._generated import TaskInstanceState
if "airflow_ha.patches.isolate_task_process" in sys.modules:
    from airflow_ha.task_process import descendants, supervised_task
    from airflow_ha.patches import isolate_task_process
    isolate_task_process.AIRFLOW_HOME = str(home)
    isolate_task_process.prepare_supervisor()
    counted = []
    report_task_exit = sys.modules["airflow_ha.patches.report_task_exit"]
    report_task_exit.count = lambda ti, ending: counted.append(ending.reason)

def task():
    pass

{task}

holder = isolate_task_process if "airflow_ha.patches.isolate_task_process" in sys.modules else supervisor
fork_main = holder._fork_main
holder._fork_main = lambda requests, out, err, log, target: fork_main(requests, out, err, log, task)
supervisor.ActivitySubprocess.send_msg = lambda *_, **__: None
reported = []
calls = SimpleNamespace(
    start=lambda *_: SimpleNamespace(should_retry=False, start_date=None),
    finish=lambda **call: reported.append(str(call["state"].value)),
    heartbeat=lambda *_, **__: None,
)
ti = SimpleNamespace(id=uuid.uuid4(), dag_id="d", task_id="t", queue="default", pid=0)
started, error = time.monotonic(), None
log = home / "logs/task.log"
descriptor = log.open("ab")
import structlog
logger = structlog.wrap_logger(
    structlog.BytesLogger(descriptor),
    processors=[structlog.processors.JSONRenderer(lambda event, **_: json.dumps(event, default=str).encode())],
)
supervisor._make_process_nondumpable()
try:
    coordinator._PythonCoordinator().execute_task(
        what=ti, dag_rel_path="d.py", bundle_info=None, client=SimpleNamespace(task_instances=calls),
        logger=logger.bind(), subprocess_logs_to_stdout=False,
    )
except Exception as raised:
    error = type(raised).__name__ + ": " + str(raised)
print(json.dumps({{
    "error": error,
    "reported": reported,
    "seconds": time.monotonic() - started,
    "log": log.read_text(),
    "scratch": os.listdir(home / "scratch"),
    "home": str(home),
    "counted": globals().get("counted"),
    "after": globals().get("after", lambda: None)(),
}}))
"""
PATCHES = """
import importlib
for name in ("reap_ended_task", "heartbeat_lease", "dag_import_signals", "isolate_task_process", "report_task_exit"):
    importlib.import_module(f"airflow_ha.patches.{name}").apply()
"""


def outcomes_of(tasks: Mapping[str, str], load: str = PATCHES) -> dict[str, dict[str, Any]]:
    """Return the outcome of each task.

    Args:
        tasks: The scripts that define `task` and what it needs, by name.
        load: The script that applies the patches.
    """
    scripts = [RUN.format(load=load, task=task) for task in tasks.values()]
    return dict(zip(tasks, map(json.loads, in_forks(IMPORTS, scripts)), strict=True))


def log_messages(outcome: Mapping[str, Any]) -> list[str]:
    """Return the messages in a task's log."""
    return [json.loads(line)["event"] for line in outcome["log"].splitlines()]
