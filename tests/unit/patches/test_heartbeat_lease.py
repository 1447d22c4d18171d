"""A task stops before its next try may begin, goes on while it is the current try, and ends when it is not."""

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

LEASE = 0.8
"""Seconds, in place of minutes."""

TASK = """
import os, signal, sys, time
def tell(what):
    with open(sys.argv[1], "a") as book:
        book.write(what + "\\n")
def end(*_):
    tell("told to end")
    os._exit(0)
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, end)
    if not os.fork():
        os.setsid()  # as the shell of a BashOperator
        while True:
            tell("child")
            time.sleep(0.02)
while True:
    tell("alive")
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def lease():
    """The patch, loaded as in a worker."""
    with applied("reap_ended_task"), applied("heartbeat_lease", ActivitySubprocess) as module:
        yield module


class Api:
    """An Execution API on loopback that answers heartbeats as it is told: a status, or not at all."""

    def __init__(self) -> None:
        self.status: int | None = 204
        self.other_calls = 204
        self.is_airflow = True
        self.asked: Counter[str] = Counter()
        self.port = 0
        self.released = threading.Event()
        self.open()

    def open(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                api.asked["heartbeat"] += 1
                if api.status is None:
                    api.released.wait()
                self.answer(api.status or 204)

            def do_GET(self) -> None:
                api.asked["other"] += 1
                self.answer(api.other_calls)

            def answer(self, status: int) -> None:
                # As the API refuses; the gateway's own answers have no such body.
                refusals = {401: "Missing auth token", 403: "Invalid auth token", 409: {"reason": "not_running"}}
                said = refusals.get(status) if api.is_airflow else None
                body = json.dumps({"detail": said}).encode() if said else b""
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
    found = Api()
    yield found
    found.released.set()
    found.close()


class Task:
    """A supervised process that writes a line whenever it does something."""

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
        """Nothing is written in ten times the pace of the task and its child."""
        before = len(self.lines())
        time.sleep(0.2)  # the absence of an event has no condition to wait for
        return len(self.lines()) == before

    def goes_on(self) -> bool:
        before = Counter(self.lines())
        return wait_until(
            lambda: all(Counter(self.lines())[what] > before[what] for what in ("alive", "child")), "both go on"
        )

    def end(self) -> None:
        for process in [*self.tree, self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.watching:  # it is who reaps the task
            self.watching.join(5)
            assert not self.watching.is_alive()
        self.process.wait()
        self.ours.close()
        self.theirs.close()


def wait_until(condition, what: str, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return True


@pytest.fixture
def task(lease, api, tmp_path, monkeypatch):
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(supervisor, "MAX_FAILED_HEARTBEATS", 1_000_000)
    monkeypatch.setattr(lease, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(lease, "ANSWER_SECONDS", 0.0)  # so that it begins now, however long ago the fork was
    monkeypatch.setattr(lease, "ASK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(lease._call.retry, "wait", tenacity.wait_fixed(0.15))
    task = Task(lease, api, tmp_path / "book")
    yield task
    task.end()


def fall_silent(api: Api, how: str) -> None:
    match how:
        case "refused":
            api.close()
        case "no answer":
            api.status = None
        case "503":
            api.status = 503


@pytest.mark.parametrize("how", ["refused", "no answer", "503"])
def test_a_task_of_which_no_heartbeat_is_accepted_stands_still_and_goes_on_when_one_is(lease, task, api, how):
    task.watch(lease.monitor_subprocess)
    wait_until(lambda: api.asked["heartbeat"] > 1, "heartbeats")
    fall_silent(api, how)
    wait_until(task.is_still, "it is suspended with its child")

    api.status = 204
    api.released.set()
    if how == "refused":
        api.open()
    assert task.goes_on()


def test_the_start_of_a_task_was_its_first_heartbeat(lease, task, api, monkeypatch):
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 60.0)
    task.watch(lease.monitor_subprocess)
    wait_until(lambda: task.lines().count("alive") > 3, "it is watched")
    assert api.asked["heartbeat"] == 0


def test_upstream_sends_another_at_once(lease, task, api, monkeypatch):
    """When this fails upstream has fixed it: `monitor_subprocess` need not see to it."""
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 60.0)
    task.watch(lease._monitor_subprocess)
    assert wait_until(lambda: api.asked["heartbeat"] == 1, "a heartbeat")


def test_upstream_lets_it_go_on(lease, task, api):
    """When this fails upstream has a lease of its own: see what of the patch is still needed."""
    task.watch(lease._monitor_subprocess)
    wait_until(lambda: api.asked["heartbeat"] > 1, "heartbeats")
    fall_silent(api, "refused")
    ends = time.monotonic() + 2 * LEASE
    while time.monotonic() < ends:  # all the while
        assert not task.is_still()
    api.open()


def test_an_interruption_shorter_than_the_lease_is_not_felt(lease, task, api, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "503")
    wait_until(lambda: api.asked["heartbeat"] > 5, "heartbeats are refused")
    assert not task.is_still()


def test_a_suspended_task_that_is_no_longer_its_own_hears_so_before_it_goes_on(lease, task, api):
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "no answer")
    wait_until(task.is_still, "it is suspended")
    lines = Counter(task.lines())
    api.status = 409
    api.released.set()
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "it is ended")
    assert task.supervisor._exit_code == 0, "by itself, not with SIGKILL"
    after = Counter(task.lines()) - lines
    assert after["told to end"] == 1
    assert after["alive"] == 0


def test_a_task_that_has_told_its_end_needs_no_lease(lease, task, api):
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "503")
    wait_until(task.is_still, "it is suspended")
    task.supervisor._terminal_state = "success"
    assert task.goes_on()


def test_a_heartbeat_is_tried_once(lease, task, api):
    fall_silent(api, "503")
    task.supervisor._send_heartbeat_if_needed()
    assert api.asked["heartbeat"] == 1


def test_upstream_tries_it_again_and_again(lease, task, api, monkeypatch):
    """When this fails, https://github.com/apache/airflow/pull/73244 is in: `try_again` can go."""
    monkeypatch.setattr(lease._call.retry, "retry", lease._retry)
    fall_silent(api, "503")
    task.supervisor._send_heartbeat_if_needed()
    assert api.asked["heartbeat"] > 2


def test_heartbeats_are_sent_between_the_tries_of_another_call(lease, task, api):
    api.other_calls = 503
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(Exception, match="503"):
        task.supervisor.client.get("variables/a")
    assert api.asked["heartbeat"] >= api.asked["other"] - 1 > 2


def test_upstream_sends_none_until_the_last_try_has_failed(lease, task, api, monkeypatch):
    """When this fails our `sleep` can go."""
    monkeypatch.setattr(lease._call.retry, "sleep", lease._sleep)
    api.other_calls = 503
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(Exception, match="503"):
        task.supervisor.client.get("variables/a")
    assert api.asked["heartbeat"] == 0


def test_a_call_for_a_task_that_was_ended_is_given_up(lease, task, api):
    api.other_calls, api.status = 503, 409
    with lease.Lease(task.supervisor, time.monotonic()), pytest.raises(lease.TaskEndedError):
        task.supervisor.client.get("variables/a")
    assert api.asked["other"] == 1


def test_an_answer_waits_for_a_suspended_task(lease, task, api):
    from airflow.sdk.execution_time.comms import VariableResult

    fall_silent(api, "503")
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "it is suspended")
        sending = threading.Thread(
            target=task.supervisor.send_msg, args=(VariableResult(key="a", value="b"),), kwargs={"request_id": 1}
        )
        sending.start()
        asked = api.asked["heartbeat"]
        wait_until(lambda: api.asked["heartbeat"] > asked + 2, "it asks whether the task may go on")
        task.theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            task.theirs.recv(1)
        api.status = 204
        sending.join(5)
        assert task.theirs.recv(1)
        assert task.goes_on()


def test_a_suspended_task_keeps_nobody_busy(lease, task, api):
    task.supervisor._open_sockets[task.theirs] = "requests"
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "it is suspended")
        started = time.monotonic()
        task.supervisor._service_subprocess(0.0)  # what upstream's loop comes to ask for
        assert time.monotonic() - started >= lease.ASK_AGAIN_SECONDS


def test_who_watches_a_lease_is_woken_only_when_it_ends_sooner(lease, monkeypatch):
    watched = lease.Lease(None, 0.0)
    woken: list[float] = []
    monkeypatch.setattr(watched._changed, "notify", lambda: woken.append(watched._expires))
    end = lease.LEASE_SECONDS
    for expires in (end + 1, end + 2, end + 2, end):
        watched.renew(expires)
    assert woken == [end]


def test_a_task_is_never_left_behind_suspended(lease, task, api):
    fall_silent(api, "503")
    with lease.Lease(task.supervisor, time.monotonic()):
        wait_until(task.is_still, "it is suspended")
    assert task.goes_on()


@pytest.mark.parametrize("status", [401, 403])
def test_a_suspended_task_that_is_refused_is_ended(lease, task, api, status):
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "no answer")
    wait_until(task.is_still, "it is suspended")
    api.status = status
    api.released.set()
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "it is ended")
    assert task.supervisor._exit_code == 0, "by itself, not with SIGKILL"
    assert task.lines().count("told to end") == 1


def test_a_task_that_is_refused_for_less_than_its_lease_runs_on(lease, task, api, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    task.watch(lease.monitor_subprocess)
    api.status = 403
    refused = api.asked["heartbeat"]
    wait_until(lambda: api.asked["heartbeat"] > refused + 3, "heartbeats are refused")
    assert not task.is_still()
    assert task.supervisor._terminal_state is None


def test_a_task_that_a_gateway_refuses_is_only_suspended(lease, task, api):
    task.watch(lease.monitor_subprocess)
    api.is_airflow, api.status = False, 403
    wait_until(task.is_still, "it is suspended")
    asked = api.asked["heartbeat"]
    wait_until(lambda: api.asked["heartbeat"] > asked + 2, "it is refused while suspended")
    api.status = 204
    assert task.goes_on()


def test_upstream_goes_on_with_a_task_that_is_refused(lease, task, api):
    """When this fails upstream ends it: `handle_heartbeat_failures` can go."""
    task.watch(lease._monitor_subprocess)
    api.status = 403
    lease._handle_heartbeat_failures(task.supervisor, RuntimeError("refused"))
    wait_until(lambda: task.supervisor.failed_heartbeats > 12, "heartbeats are refused")
    assert task.supervisor._exit_code is None


@pytest.fixture
def short_limit(lease, monkeypatch):
    monkeypatch.setattr(lease, "LIMIT_SECONDS", 0.5)


@pytest.mark.usefixtures("short_limit")
def test_a_task_that_is_suspended_for_too_long_is_killed_with_its_children(lease, task, api):
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "503")
    wait_until(task.is_still, "it is suspended")
    wait_until(lambda: task.supervisor._exit_code is not None, "it is ended")
    assert task.supervisor._exit_code == -signal.SIGKILL
    assert task.supervisor.final_state == "SERVER_TERMINATED", "nothing is reported, which could not be"
    task.watching.join(5)
    assert not task.watching.is_alive(), "the slot is free"
    wait_until(lambda: not any(child.is_running() for child in task.tree), "no child is left")
    assert "told to end" not in task.lines()


@pytest.mark.usefixtures("short_limit")
def test_a_log_that_cannot_be_written_keeps_no_slot(lease, task, monkeypatch):
    """A full disk is itself a cause of outages."""

    class Full:
        def __getattr__(self, level: str) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(task.supervisor, "process_log", Full())
    with lease.Lease(task.supervisor, time.monotonic() - LEASE):
        assert task.process.wait(5) == -signal.SIGKILL


@pytest.mark.usefixtures("short_limit")
def test_a_task_that_has_ended_keeps_its_state(lease, task):
    """Its last messages may be read for longer than its lease."""
    task.supervisor._exit_code = 0
    task.supervisor._terminal_state = "success"
    with lease.Lease(task.supervisor, time.monotonic() - LEASE) as _:
        ends = time.monotonic() + LEASE + 2 * lease.LIMIT_SECONDS
        while time.monotonic() < ends:  # all the while
            assert not task.is_still()
    assert task.supervisor._terminal_state == "success"


def test_a_call_for_a_task_that_was_suspended_for_too_long_is_given_up(lease, task, api, monkeypatch):
    api.other_calls = api.status = 503
    # The last of upstream's tries would be in 0.6 s.
    monkeypatch.setattr(lease, "LIMIT_SECONDS", 0.2)
    with lease.Lease(task.supervisor, time.monotonic() - LEASE), pytest.raises(lease.TaskEndedError):
        task.supervisor.client.get("variables/a")
    assert task.process.wait(5) == -signal.SIGKILL


@pytest.mark.usefixtures("short_limit")
def test_a_task_that_goes_on_in_time_may_be_suspended_again_for_as_long(lease, task, api):
    task.watch(lease.monitor_subprocess)
    for _ in range(3):
        fall_silent(api, "503")
        wait_until(task.is_still, "it is suspended")
        api.status = 204
        assert task.goes_on()


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("by", ["the stack's setting", "its DAG"])
def test_a_task_that_must_not_be_suspended_goes_on_until_it_is_refused(lease, task, api, monkeypatch, by):
    if by == "its DAG":
        monkeypatch.setattr(lease.suspension, "has_opted_out", lambda pid: pid == task.process.pid)
    else:
        monkeypatch.setattr(lease, "IS_ON", False)
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "503")
    ends = time.monotonic() + 2 * LEASE + lease.LIMIT_SECONDS
    while time.monotonic() < ends:  # all the while
        assert not task.is_still()
    api.status = 403
    wait_until(lambda: task.supervisor._terminal_state == "SERVER_TERMINATED", "it is ended")


@pytest.mark.parametrize(
    ("config", "says"), [({"suspend": False}, True), ({"suspend": True}, False), ({}, False), (None, False)]
)
def test_a_task_opts_out_by_its_executor_config(lease, monkeypatch, config, says):
    """In its own process, before any of it runs; the supervisor reads it, and forgets it with the task."""
    monkeypatch.setattr(lease, "_prepare", lambda *_: None)
    ti = SimpleNamespace(task=SimpleNamespace(executor_config=config))
    if not (pid := os.fork()):
        lease.prepare(ti, None, {})
        os._exit(0)
    os.waitpid(pid, 0)
    assert lease.suspension.has_opted_out(pid) == says
    with lease.Lease(SimpleNamespace(pid=pid), math.inf):
        assert lease.suspension.has_opted_out(pid) == says
    assert not lease.suspension.has_opted_out(pid)


def test_a_task_is_prepared_with_our_opt_out(lease):
    from airflow.sdk.execution_time import task_runner

    assert task_runner._prepare is lease.prepare


def test_the_time_of_each_suspension_is_counted(lease, task, api):
    before = lease.suspension.held_seconds()
    task.watch(lease.monitor_subprocess)
    fall_silent(api, "503")
    wait_until(task.is_still, "it is suspended")
    since = time.monotonic()
    ends = since + 0.3
    wait_until(lambda: time.monotonic() > ends, "it is suspended for a while")
    api.status = 204
    assert task.goes_on()
    assert lease.suspension.held_seconds() - before >= 0.3


def test_the_lease_ends_before_the_scheduler_may_start_the_task_again(lease):
    from airflow.sdk.api.client import API_TIMEOUT
    from airflow.sdk.execution_time.supervisor import HEARTBEAT_TIMEOUT

    assert lease.LEASE_SECONDS + API_TIMEOUT <= HEARTBEAT_TIMEOUT
    assert lease.ANSWER_SECONDS == API_TIMEOUT


@pytest.mark.parametrize(("answer", "is_possible"), [(5.0, True), (14.9, True), (15.0, False), (40.0, False)])
def test_a_lease_is_longer_than_a_heartbeat_takes_or_the_settings_are_refused(lease, answer, is_possible):
    if is_possible:
        assert lease.lease_seconds(35.0, 5.0, answer) == 35.0 - answer
        return
    with pytest.raises(SettingError, match="execution_api_timeout"):
        lease.lease_seconds(35.0, 5.0, answer)
