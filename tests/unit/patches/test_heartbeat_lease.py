"""A task stops before its next try may start, resumes while its try is current, and otherwise ends."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psutil
import pytest
import structlog
import tenacity
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from airflow_ha.setting_error import SettingError
from tests.unit.patches.loading import applied

pytestmark = pytest.mark.processes

LEASE = 0.8
"""Seconds; minutes in production."""

TASK = """
import os, signal, sys, time
def record(event):
    with open(sys.argv[1], "a") as book:
        book.write(event + "\\n")
def end(*_):
    record("terminated")
    os._exit(0)
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, end)
    if not os.fork():
        os.setsid()  # like the shell of a BashOperator
        while True:
            record("child")
            time.sleep(0.02)
while True:
    record("alive")
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def lease():
    """The patch, applied as in a worker."""
    with applied("reap_ended_task"), applied("heartbeat_lease", ActivitySubprocess) as module:
        yield module


class Api:
    """An Execution API that answers heartbeats with `status`, or, if it is None, not at all."""

    def __init__(self) -> None:
        self.status: int | None = 204
        self.other_calls = 204
        self.is_airflow = True
        self.requests: Counter[str] = Counter()
        self.port = 0
        self.released = threading.Event()
        self.open()

    def open(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                api.requests["heartbeat"] += 1
                if api.status is None:
                    api.released.wait()
                self.answer(api.status or 204)

            def do_GET(self) -> None:
                api.requests["other"] += 1
                self.answer(api.other_calls)

            def answer(self, status: int) -> None:
                # The API's refusals; the gateway's own answers have no such body.
                refusals = {401: "Missing auth token", 403: "Invalid auth token", 409: {"reason": "not_running"}}
                detail = refusals.get(status) if api.is_airflow else None
                body = json.dumps({"detail": detail}).encode() if detail else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api():
    server = Api()
    yield server
    server.released.set()
    server.close()


class Task:
    """A supervised process that writes a line for each event."""

    def __init__(self, lease, api: Api, book: Path) -> None:
        from airflow.sdk.api.client import Client
        from airflow.sdk.execution_time.supervisor import ActivitySubprocess, PsutilTracker

        book.touch()
        self.book = book
        self.process = subprocess.Popen([sys.executable, "-c", TASK, str(book), "with a child"], process_group=0)
        self.tree: list[psutil.Process] = []
        wait_until(lambda: {"alive", "child"} <= set(self.lines()), "the task runs")
        self.tree = psutil.Process(self.process.pid).children(recursive=True)
        self.ours, self.theirs = socket.socketpair()
        self.supervisor = ActivitySubprocess(
            id=uuid4(),
            pid=self.process.pid,
            stdin=self.ours,
            process=PsutilTracker(psutil.Process(self.process.pid)),
            process_log=structlog.get_logger(),
            client=Client(base_url=f"http://127.0.0.1:{api.port}/execution/", token="t", timeout=0.3),
            new_process_group=True,
        )
        self.supervisor._last_successful_heartbeat = time.monotonic()
        self.watching: threading.Thread | None = None

    def lines(self) -> list[str]:
        return self.book.read_text().splitlines()

    def watch(self, monitor) -> None:
        self.watching = threading.Thread(target=monitor, args=(self.supervisor,), daemon=True)
        self.watching.start()

    def is_still(self) -> bool:
        """Return whether nothing is written in ten times the interval of the task and its child."""
        before = len(self.lines())
        time.sleep(0.2)  # no condition to wait for
        return len(self.lines()) == before

    def is_running(self) -> bool:
        before = Counter(self.lines())
        return wait_until(
            lambda: all(Counter(self.lines())[line] > before[line] for line in ("alive", "child")), "both are running"
        )

    def end(self) -> None:
        for process in [*self.tree, self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.watching:  # this thread reaps the task
            self.watching.join(5)
            assert not self.watching.is_alive()
        self.process.wait()
        self.ours.close()
        self.theirs.close()


def wait_until(condition, condition_name: str, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition_name}"
        time.sleep(0.01)
    return True


@pytest.fixture
def task(lease, api, tmp_path, monkeypatch):
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(supervisor, "MAX_FAILED_HEARTBEATS", 1_000_000)
    monkeypatch.setattr(lease, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(lease, "ANSWER_SECONDS", 0.0)  # the lease starts now, whenever the fork was
    monkeypatch.setattr(lease, "SUSPENDED_HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease._call.retry, "wait", tenacity.wait_fixed(0.15))
    task = Task(lease, api, tmp_path / "book")
    yield task
    task.end()


def interrupt(api: Api, fault: str) -> None:
    match fault:
        case "refused":
            api.close()
        case "no answer":
            api.status = None
        case "503":
            api.status = 503


@pytest.mark.parametrize("fault", ["refused", "no answer", "503"])
def test_task_without_an_accepted_heartbeat_is_suspended(lease, task, api, fault):
    task.watch(lease.monitor_subprocess)
    wait_until(lambda: api.requests["heartbeat"] > 1, "heartbeats")
    interrupt(api, fault)
    wait_until(task.is_still, "the task and its child are suspended")

    api.status = 204
    api.released.set()
    if fault == "refused":
        api.open()
    assert task.is_running()


def test_start_of_a_task_counts_as_its_first_heartbeat(lease, task, api, monkeypatch):
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 60.0)
    task.watch(lease.monitor_subprocess)
    wait_until(lambda: task.lines().count("alive") > 3, "the task is supervised")
    assert api.requests["heartbeat"] == 0


def test_upstream_sends_a_heartbeat_after_the_start(lease, task, api, monkeypatch):
    """If this fails, upstream is fixed: delete that part of `monitor_subprocess`."""
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 60.0)
    task.watch(lease._monitor_subprocess)
    assert wait_until(lambda: api.requests["heartbeat"] == 1, "a heartbeat")


def test_upstream_lets_the_task_run_on(lease, task, api):
    """If this fails, upstream has a lease: check which parts of the patch are still needed."""
    task.watch(lease._monitor_subprocess)
    wait_until(lambda: api.requests["heartbeat"] > 1, "heartbeats")
    interrupt(api, "refused")
    deadline = time.monotonic() + 2 * LEASE
    while time.monotonic() < deadline:  # for the whole time
        assert not task.is_still()
    api.open()


def test_short_interruption_does_not_suspend_the_task(lease, task, api, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    task.watch(lease.monitor_subprocess)
    interrupt(api, "503")
    wait_until(lambda: api.requests["heartbeat"] > 5, "heartbeats are refused")
    assert not task.is_still()


def test_superseded_task_ends_before_it_resumes(lease, task, api):
    task.watch(lease.monitor_subprocess)
    interrupt(api, "no answer")
    wait_until(task.is_still, "the task is suspended")
    lines = Counter(task.lines())
    api.status = 409
    api.released.set()
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "the task is ended")
    assert task.supervisor._exit_code == 0, "without SIGKILL"
    after = Counter(task.lines()) - lines
    assert after["terminated"] == 1
    assert after["alive"] == 0


def test_finished_task_is_resumed_without_a_lease(lease, task, api):
    task.watch(lease.monitor_subprocess)
    interrupt(api, "503")
    wait_until(task.is_still, "the task is suspended")
    task.supervisor._terminal_state = "success"
    assert task.is_running()


def test_heartbeat_is_not_retried(lease, task, api):
    interrupt(api, "503")
    task.supervisor._send_heartbeat_if_needed()
    assert api.requests["heartbeat"] == 1


def test_upstream_retries_a_heartbeat(lease, task, api, monkeypatch):
    """If this fails, https://github.com/apache/airflow/pull/73244 is merged: delete `should_retry`."""
    monkeypatch.setattr(lease._call.retry, "retry", lease._retry)
    interrupt(api, "503")
    task.supervisor._send_heartbeat_if_needed()
    assert api.requests["heartbeat"] > 2


def test_heartbeats_are_sent_between_retries_of_a_call(lease, task, api):
    api.other_calls = 503
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(Exception, match=r"503|timed out"):
        task.supervisor.client.get("variables/a")
    assert api.requests["heartbeat"] >= api.requests["other"] - 1 > 2


def test_upstream_sends_no_heartbeat_between_retries(lease, task, api, monkeypatch):
    """If this fails, delete the patch's `sleep`."""
    monkeypatch.setattr(lease._call.retry, "sleep", lease._sleep)
    api.other_calls = 503
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(Exception, match=r"503|timed out"):
        task.supervisor.client.get("variables/a")
    assert api.requests["heartbeat"] == 0


def test_call_of_an_ended_task_is_not_retried(lease, task, api):
    api.other_calls, api.status = 503, 409
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(lease.TaskEndedError):
        task.supervisor.client.get("variables/a")
    assert api.requests["other"] == 1


def test_answer_to_a_suspended_task_waits(lease, task, api):
    from airflow.sdk.execution_time.comms import VariableResult

    interrupt(api, "503")
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "the task is suspended")
        sending = threading.Thread(
            target=task.supervisor.send_msg, args=(VariableResult(key="a", value="b"),), kwargs={"request_id": 1}
        )
        sending.start()
        requests = api.requests["heartbeat"]
        wait_until(lambda: api.requests["heartbeat"] > requests + 2, "heartbeats are sent")
        task.theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            task.theirs.recv(1)
        api.status = 204
        sending.join(5)
        assert task.theirs.recv(1)
        assert task.is_running()


def test_suspended_task_keeps_its_supervisor_idle(lease, task, api):
    task.supervisor._open_sockets[task.theirs] = "requests"
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "the task is suspended")
        started = time.monotonic()
        task.supervisor._service_subprocess(0.0)  # the wait that upstream's loop reaches
        assert time.monotonic() - started >= lease.SUSPENDED_HEARTBEAT_SECONDS


def test_lease_thread_wakes_only_for_an_earlier_expiry(lease, monkeypatch):
    watched_lease = lease.Lease(None, 0.0)
    wakeups: list[float] = []
    monkeypatch.setattr(watched_lease._changed, "notify", lambda: wakeups.append(watched_lease._expires))
    end = lease.LEASE_SECONDS
    for expires in (end + 1, end + 2, end + 2, end):
        watched_lease.renew(expires)
    assert wakeups == [end]


def test_closed_lease_resumes_the_task(lease, task, api):
    interrupt(api, "503")
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "the task is suspended")
    assert task.is_running()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_suspended_task_is_ended(lease, task, api, status):
    task.watch(lease.monitor_subprocess)
    interrupt(api, "no answer")
    wait_until(task.is_still, "the task is suspended")
    api.status = status
    api.released.set()
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "the task is ended")
    assert task.supervisor._exit_code == 0, "without SIGKILL"
    assert task.lines().count("terminated") == 1


def test_task_refused_within_its_lease_runs_on(lease, task, api, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    task.watch(lease.monitor_subprocess)
    api.status = 403
    refused = api.requests["heartbeat"]
    wait_until(lambda: api.requests["heartbeat"] > refused + 3, "heartbeats are refused")
    assert not task.is_still()
    assert task.supervisor._terminal_state is None


def test_task_refused_by_the_gateway_is_only_suspended(lease, task, api):
    task.watch(lease.monitor_subprocess)
    api.is_airflow, api.status = False, 403
    wait_until(task.is_still, "the task is suspended")
    requests = api.requests["heartbeat"]
    wait_until(lambda: api.requests["heartbeat"] > requests + 2, "heartbeats are refused")
    api.status = 204
    assert task.is_running()


def test_upstream_lets_a_refused_task_run_on(lease, task, api):
    """If this fails, upstream ends the task: delete `handle_heartbeat_failures`."""
    task.watch(lease._monitor_subprocess)
    api.status = 403
    lease._handle_heartbeat_failures(task.supervisor, RuntimeError("refused"))
    wait_until(lambda: task.supervisor.failed_heartbeats > 12, "heartbeats are refused")
    assert task.supervisor._exit_code is None


@pytest.fixture
def short_limit(lease, monkeypatch):
    monkeypatch.setattr(lease, "LIMIT_SECONDS", 0.5)


@pytest.mark.usefixtures("short_limit")
def test_task_over_its_suspension_limit_is_killed(lease, task, api):
    task.watch(lease.monitor_subprocess)
    interrupt(api, "503")
    wait_until(task.is_still, "the task is suspended")
    wait_until(lambda: task.supervisor._exit_code is not None, "the task is ended")
    assert task.supervisor._exit_code == -signal.SIGKILL
    assert task.supervisor.final_state == "SERVER_TERMINATED", "no state is reported"
    task.watching.join(5)
    assert not task.watching.is_alive(), "the slot is released"
    wait_until(lambda: not any(child.is_running() for child in task.tree), "no child remains")
    assert "terminated" not in task.lines()


@pytest.mark.usefixtures("short_limit")
def test_unwritable_log_does_not_keep_the_slot(lease, task, monkeypatch):
    """A full disk is itself a cause of outages."""

    class Full:
        def __getattr__(self, level: str) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(task.supervisor, "process_log", Full())
    with lease.Lease(task.supervisor, time.monotonic() - LEASE):
        assert task.process.wait(5) == -signal.SIGKILL


@pytest.mark.usefixtures("short_limit")
def test_ended_task_keeps_its_state(lease, task):
    """Reading its last messages may outlast the lease."""
    task.supervisor._exit_code = 0
    task.supervisor._terminal_state = "success"
    with lease.Lease(task.supervisor, time.monotonic() - LEASE) as _:
        deadline = time.monotonic() + LEASE + 2 * lease.LIMIT_SECONDS
        while time.monotonic() < deadline:  # for the whole time
            assert not task.is_still()
    assert task.supervisor._terminal_state == "success"


def test_call_of_a_killed_suspended_task_is_not_retried(lease, task, api, monkeypatch):
    api.other_calls = api.status = 503
    # Upstream's last retry would be in 0.6 s.
    monkeypatch.setattr(lease, "LIMIT_SECONDS", 0.2)
    with lease.Lease(task.supervisor, time.monotonic() - LEASE), pytest.raises(lease.TaskEndedError):
        task.supervisor.client.get("variables/a")
    assert task.process.wait(5) == -signal.SIGKILL


def test_resumed_task_has_its_full_limit_again(lease, task, api, monkeypatch):
    """Three suspensions are longer than the limit; a busy machine has 1.8 s to resume the task after each."""
    monkeypatch.setattr(lease, "LIMIT_SECONDS", 3.0)
    task.watch(lease.monitor_subprocess)
    for _ in range(3):
        interrupt(api, "503")
        wait_until(task.is_still, "the task is suspended")
        time.sleep(1.2)  # suspended for so long
        api.status = 204
        assert task.is_running()


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("opt_out", ["setting", "DAG"])
def test_task_that_opted_out_runs_until_it_is_refused(lease, task, api, monkeypatch, opt_out):
    if opt_out == "DAG":
        monkeypatch.setattr(lease.suspension, "has_opted_out", lambda pid: pid == task.process.pid)
    else:
        monkeypatch.setattr(lease, "IS_ON", False)
    task.watch(lease.monitor_subprocess)
    interrupt(api, "503")
    deadline = time.monotonic() + 2 * LEASE + lease.LIMIT_SECONDS
    while time.monotonic() < deadline:  # for the whole time
        assert not task.is_still()
    api.status = 403
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "the task is ended")


@pytest.mark.parametrize(
    ("config", "is_opted_out"), [({"suspend": False}, True), ({"suspend": True}, False), ({}, False), (None, False)]
)
def test_executor_config_opts_a_task_out(lease, monkeypatch, config, is_opted_out):
    """The task process opts out before the task runs; the supervisor reads it, and removes it with the task."""
    monkeypatch.setattr(lease, "_prepare", lambda *_: None)
    ti = SimpleNamespace(task=SimpleNamespace(executor_config=config))
    if not (pid := os.fork()):
        lease.prepare(ti, None, {})
        os._exit(0)
    os.waitpid(pid, 0)
    assert lease.suspension.has_opted_out(pid) == is_opted_out
    with lease.Lease(SimpleNamespace(pid=pid), math.inf):
        assert lease.suspension.has_opted_out(pid) == is_opted_out
    assert not lease.suspension.has_opted_out(pid)


def test_task_is_prepared_with_the_opt_out(lease):
    from airflow.sdk.execution_time import task_runner

    assert task_runner._prepare is lease.prepare


def test_time_of_each_suspension_is_counted(lease, task, api):
    before = lease.suspension.held_seconds()
    task.watch(lease.monitor_subprocess)
    interrupt(api, "503")
    wait_until(task.is_still, "the task is suspended")
    started = time.monotonic()
    deadline = started + 0.3
    wait_until(lambda: time.monotonic() > deadline, "the suspension lasts")
    api.status = 204
    assert task.is_running()
    assert lease.suspension.held_seconds() - before >= 0.3


def test_lease_ends_before_the_scheduler_may_retry(lease):
    from airflow.sdk.api.client import API_TIMEOUT
    from airflow.sdk.execution_time.supervisor import HEARTBEAT_TIMEOUT

    assert lease.LEASE_SECONDS + API_TIMEOUT <= HEARTBEAT_TIMEOUT
    assert lease.ANSWER_SECONDS == API_TIMEOUT


@pytest.mark.parametrize(("answer", "is_possible"), [(5.0, True), (14.9, True), (15.0, False), (40.0, False)])
def test_settings_without_room_for_a_heartbeat_are_refused(lease, answer, is_possible):
    if is_possible:
        assert lease.lease_seconds(35.0, 5.0, answer) == 35.0 - answer
        return
    with pytest.raises(SettingError, match="execution_api_timeout"):
        lease.lease_seconds(35.0, 5.0, answer)
