"""A task over its limit fails alone, with the limit in its log; a stranger leaves nothing in the database."""

from __future__ import annotations

import re

import httpx
import pytest

from ops.project import ADMIN
from tests.stack import Stack, wait_until


def ended_states(stack: Stack, dag: str, run: str) -> list[tuple[object, object, object]]:
    """Return the name and state of each task instance of a run, and the number of its last try."""
    return sorted((ti["task_id"], ti["state"], ti["try_number"]) for ti in stack.api.task_instances(dag, run))


# tests/unit/patches/test_task_limits.py has this limit in every run, with real processes.
@pytest.mark.nightly
def test_task_that_leaks_memory_in_forks_ends_alone(stack: Stack):
    run = stack.api.trigger("memory_quota")
    stack.api.wait_for_run("memory_quota", run, timeout=180)
    log = stack.api.log("memory_quota", run, "leak")
    harmless = ("harmless", "success", 1)
    assert ended_states(stack, "memory_quota", run) == [*[harmless] * 4, ("leak", "failed", 1)], log
    assert "TASK_MEMORY_LIMIT" in log


# test_task_process.py fills the disk in every run, in the task's own folder.
@pytest.mark.nightly
def test_task_that_fills_the_artifacts_ends(stack: Stack):
    if stack.settings.get("TASK_SCRATCH_LIMIT") != "1500m":
        pytest.skip("the stack that is up has another limit")
    run = stack.api.trigger("disk_quota")
    try:
        stack.api.wait_for_run("disk_quota", run, timeout=180)
    finally:
        stack.containers("worker")[0].execute("rm", "-f", "/opt/airflow/artifacts/disk_quota")
    log = stack.api.log("disk_quota", run, "fill_artifacts")
    assert ended_states(stack, "disk_quota", run) == [("fill_artifacts", "failed", 1)], log
    assert "No space left on device" in log
    assert "TASK_SCRATCH_LIMIT" in log


def test_fork_bomb_ends_alone_and_leaves_nothing(stack: Stack):
    run = stack.api.trigger("process_quota")
    stack.api.wait_for_run("process_quota", run, timeout=180)
    log = stack.api.log("process_quota", run, "bomb")
    harmless = ("harmless", "success", 1)
    assert ended_states(stack, "process_quota", run) == [("bomb", "failed", 1), *[harmless] * 4], log
    assert "TASK_PIDS_LIMIT" in log
    for worker in stack.containers("worker"):
        assert "bomb" not in worker.execute("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null", check=False).stdout


def stored_sessions(stack: Stack) -> int:
    """Return the number of sessions in the database."""
    node = (stack.containers("postgres") or stack.containers("patroni-1"))[0]
    count = "SELECT count(*) FROM session"
    return int(node.execute("psql", "-U", "postgres", "-d", "airflow", "-Atc", count).stdout)


def test_only_a_log_in_stores_a_session(stack: Stack):
    before = stored_sessions(stack)
    for _ in range(3):
        httpx.get(f"{stack.airflow_url}/auth/login/").raise_for_status()
    assert stored_sessions(stack) == before
    with httpx.Client(base_url=stack.airflow_url, follow_redirects=True) as browser:
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', browser.get("/auth/login/").text)
        assert token
        form = {"csrf_token": token[1], "username": ADMIN, "password": stack.secret("airflow_admin_password")}
        browser.post("/auth/login/", data=form).raise_for_status()
        assert stored_sessions(stack) == before + 1
        assert browser.get("/auth/users/list/").status_code == httpx.codes.OK


@pytest.fixture(scope="module")
def worker(stack: Stack) -> str:
    """Return the name of a worker that Flower knows."""
    workers = wait_until(
        lambda: stack.flower.get("/api/workers", params={"refresh": True}).raise_for_status().json(),
        timeout=60,
        what="Flower knows the workers",
    )
    return str(next(iter(workers)))


@pytest.mark.parametrize(
    "path",
    [
        "worker/shutdown/{worker}",
        "worker/pool/shrink/{worker}?n=1",
        "worker/queue/cancel-consumer/{worker}?queue=default",
        "task/send-task/execute_workload",
        "task/revoke/none?terminate=true",
    ],
)
def test_flower_shows_workers_and_refuses_operations(stack: Stack, worker: str, path: str):
    answer = stack.flower.post(f"/api/{path.format(worker=worker)}", json={"args": []})
    assert answer.status_code == httpx.codes.FORBIDDEN
