"""A new file in dags/ is parsed within 30 seconds; a broken one is reported and harms no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, wait_until

DROPPED = """
from datetime import datetime, timezone
from airflow.sdk import dag, task

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), is_paused_upon_creation=False)
def dropped():
    @task
    def hello():
        return "hello"
    hello()

dropped()
"""


@pytest.fixture
def dag_file(stack: Stack) -> Iterator[Path]:
    path = stack.dags / "dropped_dag.py"
    yield path
    path.unlink(missing_ok=True)


def test_a_new_dag_file_is_there_within_30_seconds_and_runs(stack: Stack, dag_file: Path):
    dag_file.write_text(DROPPED)
    dag_file.chmod(0o644)
    wait_until(lambda: stack.api.has_dag("dropped"), timeout=30, what="the dropped DAG is there")
    result = stack.command("trigger", "dropped", "--wait")
    assert "success" in result.stdout


def test_status_shows_an_import_error_and_other_dags_run(stack: Stack, dag_file: Path):
    dag_file.write_text("import a_module_that_is_not_there\nfrom airflow.sdk import dag\n")
    dag_file.chmod(0o644)

    def is_reported() -> bool:
        errors = stack.status()["dags"]["import_errors"]
        return any("dropped_dag.py" in e["file"] and "a_module_that_is_not_there" in e["error"] for e in errors)

    wait_until(is_reported, timeout=60, what="status shows the import error", interval=2)
    assert "dropped_dag.py" in stack.command("status", check=False).stdout
    run = stack.api.trigger("load", tasks=2, seconds=0)
    assert stack.api.wait_for_run("load", run, timeout=60) == "success"


def test_an_unknown_dag_is_refused_with_the_known_ones(stack: Stack):
    result = stack.command("trigger", "no_such_dag", check=False)
    assert result.returncode == 2
    assert "ml_pipeline_dag" in result.stdout


def test_a_conf_is_handed_to_the_run(stack: Stack):
    result = stack.command("trigger", "load", "--conf", json.dumps({"tasks": 3, "seconds": 0}), "--wait")
    assert "success" in result.stdout
    newest = stack.api.get("/dags/load/dagRuns", order_by="-run_after", limit=1)["dag_runs"][0]
    assert len(stack.api.task_instances("load", newest["dag_run_id"], "work")) == 3
