"""Too large requests are refused with the reason, or read in parts; servers and other users are not affected."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.stack import Airflow, Container, Stack, wait_until

LOG_PATH = "/opt/airflow/logs/dag_id=prints/run_id={run}/task_id=log/attempt=1.log"
WRITE = """
import json, sys
path, megabytes = sys.argv[1], int(sys.argv[2])
line = json.dumps({"timestamp": "2099-01-01T00:00:00Z", "level": "info", "event": "y" * 880, "logger": "task"}) + "\\n"
with open(path, "a") as file:
    for _ in range(megabytes):
        file.write(line * (1_000_000 // len(line)))
    file.write(json.dumps({"timestamp": "2099-01-01T00:00:01Z", "level": "error", "event": "the end"}) + "\\n")
"""
BODY = 250_000
"""Bytes just below REQUEST_LIMIT."""


@pytest.fixture
def api(healthy_stack: Stack) -> Airflow:
    return healthy_stack.api


@pytest.fixture(autouse=True)
def _unharmed(healthy_stack: Stack) -> Iterator[None]:
    """Check that no test restarts a server."""
    before = started(healthy_stack)
    yield
    assert started(healthy_stack) == before


def servers(stack: Stack) -> list[Container]:
    return [container for kind in ("api-server", "execution-api") for container in stack.containers(kind)]


def started(stack: Stack) -> dict[str, str]:
    return {container.id: container.inspect()["State"]["StartedAt"] for container in servers(stack)}


def memory(stack: Stack) -> dict[str, int]:
    """Return the peak memory of the largest process of each server, in MiB."""
    ask = "import pathlib, re; print(max(int(re.search(r'VmHWM:\\s+(\\d+)', text)[1]) for text in (path.read_text() "
    ask += "for path in pathlib.Path('/proc').glob('[0-9]*/status')) if 'VmHWM' in text) // 1024)"
    return {
        f"{server.service}-{server.id[:6]}": int(server.execute("python", "-S", "-c", ask).stdout)
        for server in servers(stack)
    }


def log_request(api: Airflow, run: str, accept: str, **params: Any) -> httpx.Request:
    path = f"/api/v2/dags/prints/dagRuns/{run}/taskInstances/log/logs/1"
    return api.http.build_request("GET", path, params=params, headers={"Accept": accept}, timeout=300)


def streamed(api: Airflow, run: str) -> tuple[int, str]:
    """Return the size of a whole log's stream in characters, and its last line."""
    size, last = 0, ""
    request = log_request(api, run, "application/x-ndjson", full_content=True)
    response = api.http.send(request, stream=True)
    response.raise_for_status()
    for line in response.iter_lines():
        size += len(line) + 1
        last = line
    return size, last


def read_logs_at_once(stack: Stack, megabytes: int, downloads: int) -> None:
    """Request one large log as downloads and as eight pages of each kind, and check that other pages still answer."""
    api = stack.api
    run = api.trigger("prints")
    assert api.wait_for_run("prints", run, timeout=120) == "success"
    stack.containers("worker")[0].execute("python", "-S", "-c", WRITE, LOG_PATH.format(run=run), str(megabytes))

    with ThreadPoolExecutor(24) as pool:
        full_logs = [pool.submit(streamed, api, run) for _ in range(downloads)]
        pages = [
            pool.submit(api.http.send, log_request(api, run, accept, **params))
            for accept, params in [("application/x-ndjson", {}), ("application/json", {"full_content": True})]
            for _ in range(8)
        ]
        while not all(job.done() for job in (*full_logs, *pages)):
            begun = time.monotonic()
            api.get("/dags")
            assert time.monotonic() - begun < 15
            time.sleep(0.5)
    for size, last in (job.result() for job in full_logs):
        assert size > megabytes * 990_000
        assert json.loads(last)["event"] == "the end"
    for response in (job.result() for job in pages):
        assert response.status_code == 200
        assert len(response.content) < 8_000_000
        assert "the end" in response.text[-500:]
        assert LOG_PATH.format(run=run) in response.text
    assert "after the long line" in api.log("prints", run, "long_line")


def test_log_of_300_mb_is_read_by_many_at_once(healthy_stack: Stack):
    read_logs_at_once(healthy_stack, 300, downloads=2)
    assert max(memory(healthy_stack).values()) < 560


@pytest.mark.nightly
def test_log_of_1_gb_is_read_by_many_at_once(healthy_stack: Stack):
    read_logs_at_once(healthy_stack, 1000, downloads=8)


def test_a_task_that_sends_too_much_fails_once_with_a_reason(api: Airflow):
    run = api.trigger("too_big")
    assert api.wait_for_run("too_big", run, timeout=120) == "failed"
    instances = api.task_instances("too_big", run)
    assert {ti["task_id"]: (ti["state"], ti["try_number"]) for ti in instances} == {
        ti["task_id"]: ("failed", 1) for ti in instances
    }
    assert len(instances) == 8
    for ti in instances:
        log = api.log("too_big", run, ti["task_id"])
        assert ("2,000,000" if ti["task_id"] in ("xcom", "escaped_xcom", "pushed") else "256,000") in log, ti["task_id"]
        assert "XCOM_LIMIT" in log, ti["task_id"]


def test_16_tasks_pass_on_values_at_the_limit(healthy_stack: Stack):
    api = healthy_stack.api
    run = api.trigger("fits")
    assert api.wait_for_run("fits", run, timeout=180) == "success"
    assert api.xcom("fits", run, "reads_all") == 16 * 990_000
    listed = api.get(f"/dags/fits/dagRuns/{run}/taskInstances/~/xcomEntries", limit=100)
    assert len(listed["xcom_entries"]) >= 34
    assert max(memory(healthy_stack).values()) < 560


def test_32_users_send_bodies_at_the_limit_at_once(healthy_stack: Stack):
    api = healthy_stack.api
    wait_until(lambda: api.has_dag("branching"), timeout=60, what="the DAG is there")
    nested = json.loads("[" + "[]," * (BODY // 3 - 20) + "[]]")
    path = "/api/v2/dags/branching/dagRuns"

    def send(number: int) -> int:
        value: Any = nested if number % 2 else "x" * BODY
        body = json.dumps({"logical_date": None, "conf": {"a": value}}, separators=(",", ":"))
        headers = {"Content-Type": "application/json"}
        if number >= 32:
            headers["Authorization"] = ""  # anonymous
        return api.http.post(path, content=body, headers=headers, timeout=120).status_code

    api.http.patch("/api/v2/dags/branching", json={"is_paused": True}).raise_for_status()
    with ThreadPoolExecutor(64) as pool:
        statuses = list(pool.map(send, range(64)))
    assert statuses == [200] * 32 + [401] * 32
    runs = api.get("/dags/branching/dagRuns", limit=100, order_by="-run_after")
    for dag_run in runs["dag_runs"]:
        if dag_run["state"] == "queued":
            api.http.delete(f"{path}/{dag_run['dag_run_id']}")
    api.http.patch("/api/v2/dags/branching", json={"is_paused": False}).raise_for_status()


def test_body_over_the_limit_is_refused_with_the_limit(api: Airflow):
    for headers in ({}, {"Authorization": ""}):
        answer = api.http.post("/api/v2/dags/branching/dagRuns", content=b"x" * 60_000_000, headers=headers)
        assert answer.status_code == 413
        assert "256000" in answer.json()["detail"]
