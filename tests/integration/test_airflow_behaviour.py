"""Behaviour that users expect of any Airflow: each test triggers real runs of tests/integration/dags."""

from __future__ import annotations

import subprocess
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.stack import Airflow, Stack, wait_until


@pytest.fixture
def api(healthy_stack: Stack) -> Airflow:
    return healthy_stack.api


def states(api: Airflow, dag_id: str, run: str) -> dict[str, str]:
    return {ti["task_id"]: ti["state"] for ti in api.task_instances(dag_id, run)}


def test_a_task_that_fails_is_tried_again_as_often_as_it_may(api: Airflow):
    run = api.trigger("retried")
    assert api.wait_for_run("retried", run, timeout=60) == "success"
    assert api.xcom("retried", run, "succeed_at_the_third_try") == 3
    assert "try 1 is meant to fail" in api.log("retried", run, "succeed_at_the_third_try", 1)


LISTENER = """
import select
from airflow import settings
from airflow_ha.patches.scheduler_notify_wakeup import CHANNEL
connection = settings.get_engine().raw_connection().dbapi_connection
connection.autocommit = True
connection.cursor().execute(f"LISTEN {CHANNEL}")
print("listening", flush=True)
while select.select([connection], [], [], 5)[0]:
    connection.poll()
    print("work " * len(connection.notifies), end="", flush=True)
    connection.notifies.clear()
"""


def test_schedulers_are_notified_of_runs_and_completed_tasks(healthy_stack: Stack, api: Airflow):
    container, *_ = healthy_stack.containers("api-server")
    command = ["docker", "exec", container.id, "python", "-c", LISTENER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout
        assert "listening\n" in iter(listener.stdout.readline, "")  # after the lines that Airflow logs while it loads
        run = api.trigger("branching", way="left")
        assert api.wait_for_run("branching", run, timeout=60) == "success"
        notified = listener.stdout.read().split().count("work")
    # The run, choose and left; more if others ran meanwhile.
    assert notified >= 3


@pytest.mark.parametrize(
    ("way", "other"), [("left", "right"), pytest.param("right", "left", marks=pytest.mark.nightly)]
)
def test_a_branch_takes_one_way_and_skips_the_other(api: Airflow, way: str, other: str):
    run = api.trigger("branching", way=way)
    assert api.wait_for_run("branching", run, timeout=60) == "success"
    assert states(api, "branching", run) == {"choose": "success", way: "success", other: "skipped"}


def test_200_mapped_tasks_all_succeed_at_their_first_try(api: Airflow):
    run = api.trigger("mapped")
    assert api.wait_for_run("mapped", run, timeout=180) == "success"
    assert api.xcom("mapped", run, "total") == sum(number * number for number in range(200))
    assert [ti["try_number"] for ti in api.task_instances("mapped", run, "square")] == [1] * 200


def test_a_pool_bounds_how_many_tasks_run_at_once(api: Airflow):
    pool = {"name": "tests_two_slots", "slots": 2, "description": "", "include_deferred": False}
    created = api.http.post("/api/v2/pools", json=pool)
    assert created.status_code in (httpx.codes.CREATED, httpx.codes.CONFLICT), created.text
    run = api.trigger("pooled")
    assert api.wait_for_run("pooled", run, timeout=90) == "success"
    events: list[tuple[datetime, int]] = []
    for ti in api.task_instances("pooled", run, "work"):
        events += [
            (datetime.fromisoformat(ti["start_date"]), 1),
            (datetime.fromisoformat(ti["end_date"]), -1),
        ]
    at_once = [0]
    for _, change in sorted(events):
        at_once.append(at_once[-1] + change)
    assert len(events) == 16
    assert max(at_once) == 2


def test_a_task_over_its_time_fails_with_that_reason(api: Airflow):
    run = api.trigger("too_slow")
    assert api.wait_for_run("too_slow", run, timeout=60) == "failed"
    assert "AirflowTaskTimeout" in api.log("too_slow", run, "sleep_on")
    (ti,) = api.task_instances("too_slow", run)
    assert ti["duration"] < 20


def test_a_task_that_is_killed_by_a_signal_is_tried_again(api: Airflow):
    run = api.trigger("killed")
    assert api.wait_for_run("killed", run, timeout=90) == "success"
    assert api.xcom("killed", run, "kill_the_first_try") == 2


def test_an_xcom_of_a_mebibyte_arrives_complete(api: Airflow):
    run = api.trigger("large_xcom")
    assert api.wait_for_run("large_xcom", run, timeout=60) == "success"
    assert api.xcom("large_xcom", run, "measure") == 2**20


def test_a_backfill_runs_each_of_its_days_once(api: Airflow):
    wait_until(lambda: api.has_dag("daily"), timeout=60, what="the DAG daily is there")
    body = {
        "dag_id": "daily",
        "from_date": "2026-03-01T00:00:00Z",
        "to_date": "2026-03-03T00:00:00Z",
        "reprocess_behavior": "completed",
    }
    created = api.http.post("/api/v2/backfills", json=body)
    assert created.is_success, created.text

    def backfilled() -> dict[str, str]:
        runs = api.get("/dags/daily/dagRuns", run_type="backfill", limit=100)["dag_runs"]
        return {run["logical_date"][:10]: run["state"] for run in runs}

    wanted = dict.fromkeys(("2026-03-01", "2026-03-02", "2026-03-03"), "success")
    wait_until(lambda: backfilled() == wanted, timeout=90, what=f"the backfill's runs are {wanted}")


def test_a_cleared_task_runs_again_and_its_neighbour_does_not(api: Airflow):
    run = api.trigger("clearable")
    assert api.wait_for_run("clearable", run, timeout=60) == "success"
    body = {"dry_run": False, "only_failed": False, "task_ids": ["second"], "dag_run_id": run}
    cleared = api.http.post("/api/v2/dags/clearable/clearTaskInstances", json=body)
    assert cleared.is_success, cleared.text

    def tries() -> dict[str, tuple[int, str]]:
        return {ti["task_id"]: (ti["try_number"], ti["state"]) for ti in api.task_instances("clearable", run)}

    wanted = {"first": (1, "success"), "second": (2, "success")}
    wait_until(lambda: tries() == wanted, timeout=60, what=f"the tries are {wanted}")


def test_a_paused_dag_starts_nothing_until_it_is_unpaused(api: Airflow):
    wait_until(lambda: api.has_dag("clearable"), timeout=60, what="the DAG is there")
    api.http.patch("/api/v2/dags/clearable", json={"is_paused": True}).raise_for_status()
    try:
        body = {"logical_date": None, "conf": {}}
        run = api.http.post("/api/v2/dags/clearable/dagRuns", json=body).raise_for_status().json()["dag_run_id"]
        # A whole run of another DAG passes by meanwhile: the schedulers had every chance.
        other = api.trigger("branching")
        assert api.wait_for_run("branching", other, timeout=60) == "success"
        assert api.run_state("clearable", run) == "queued"
    finally:
        api.http.patch("/api/v2/dags/clearable", json={"is_paused": False}).raise_for_status()
    assert api.wait_for_run("clearable", run, timeout=60) == "success"


def test_a_deferred_task_survives_a_crash_of_the_triggerer(healthy_stack: Stack, api: Airflow):
    run = api.trigger("deferring")
    wait_until(lambda: api.in_state("deferring", run, "wait", "deferred"), timeout=60, what="the sensor has deferred")
    for triggerer in healthy_stack.containers("triggerer"):
        triggerer.crash()
    assert api.wait_for_run("deferring", run, timeout=150) == "success"
    (ti,) = api.task_instances("deferring", run)
    assert ti["try_number"] == 1


def test_work_is_spread_over_both_workers(healthy_stack: Stack, api: Airflow):
    run = api.trigger("load", tasks=32, seconds=1)
    assert api.wait_for_run("load", run, timeout=90) == "success"
    used = {ti["hostname"] for ti in api.task_instances("load", run, "work")}
    assert used == {worker.id[:12] for worker in healthy_stack.containers("worker")}


def test_a_log_can_be_read_when_its_worker_is_gone(healthy_stack: Stack, api: Airflow):
    run = api.trigger("printing")
    assert api.wait_for_run("printing", run, timeout=60) == "success"
    (ti,) = api.task_instances("printing", run)
    worker = next(each for each in healthy_stack.containers("worker") if each.id.startswith(ti["hostname"]))
    worker.kill()
    try:
        assert "a line of this task's log" in api.log("printing", run, "print_line")
    finally:
        worker.start()


def test_the_checks_of_airflows_own_quick_start_pass(healthy_stack: Stack, api: Airflow):
    """Repeat the test of apache/airflow for its docker-compose.yaml: it is healthy, and an example DAG succeeds.

    https://github.com/apache/airflow/blob/main/docker-tests/tests/docker_tests/test_docker_compose_quick_start.py
    """
    health = api.get("/monitor/health")
    assert {part: health[part]["status"] for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")} == {
        "metadatabase": "healthy", "scheduler": "healthy", "triggerer": "healthy", "dag_processor": "healthy",
    }  # fmt: skip
    spec = find_spec("airflow.example_dags.example_simplest_dag")
    assert spec
    assert spec.origin
    example = healthy_stack.dags / "example_simplest_dag.py"
    example.write_text(Path(spec.origin).read_text())
    example.chmod(0o644)
    try:
        run = api.trigger("example_simplest_dag")
        assert api.wait_for_run("example_simplest_dag", run, timeout=60) == "success"
    finally:
        example.unlink()
