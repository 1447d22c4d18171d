"""No attempt goes on once another may have begun, and none is lost to an outage."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import structlog
import tenacity
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

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
    """Our work-round, loaded as in a worker."""
    with applied("reap_ended_task"), applied("heartbeat_lease", ActivitySubprocess) as module:
        yield module


class Api:
    """An Execution API on loopback that answers heartbeats as it is told: a status, or not at all."""

    def __init__(self) -> None:
        self.status: int | None = 204
        self.other_calls = 204
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
                # As the API refuses; the gateway's 503 has no such body.
                body = b'{"detail": {"reason": "not_running"}}' if status == 409 else b""
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
    """When this fails upstream has mended it: `monitor_subprocess` need not see to it."""
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 60.0)
    task.watch(lease._monitor_subprocess)
    assert wait_until(lambda: api.asked["heartbeat"] == 1, "a heartbeat")


def test_upstream_lets_it_go_on(lease, task, api):
    """When this fails upstream has a lease of its own: see what of our work-round is still needed."""
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


def test_the_lease_ends_before_the_scheduler_may_start_the_task_again(lease):
    from airflow.sdk.api.client import API_TIMEOUT
    from airflow.sdk.execution_time.supervisor import HEARTBEAT_TIMEOUT

    assert lease.LEASE_SECONDS + API_TIMEOUT <= HEARTBEAT_TIMEOUT
