"""A watched connection to a former primary is shut; no other connection is."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from airflow_ha.patches import stale_connections


@pytest.fixture(autouse=True)
def empty_watch_list(monkeypatch):
    monkeypatch.setattr(stale_connections, "_watched", {})
    monkeypatch.setattr(stale_connections, "OVERDUE_SECONDS", 0.05)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def waiting(request):
    """A connection with an overdue answer: no process accepts it, as in a frozen server."""
    address = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    try:
        listener = socket.create_server((address, 0), family=request.param)
    except OSError as error:
        pytest.skip(f"no {address} here: {error}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as connection:
        connection.sendall(b"SELECT 1")
        deadline = time.monotonic() + 5
        while not stale_connections.is_overdue(connection):
            assert time.monotonic() < deadline
        yield connection


def test_call_to_a_former_primary_ends(waiting):
    stale_connections.watch(waiting.fileno(), "node-1", lambda: "node-2")
    assert stale_connections.shut_stale() == 1
    waiting.settimeout(5)
    assert waiting.recv(1) == b""


def test_stale_connection_is_shut_once(waiting):
    stale_connections.watch(waiting.fileno(), "node-1", lambda: "node-2")
    assert [stale_connections.shut_stale() for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("primary", ["node-1", None])
def test_slow_primary_keeps_its_connection(waiting, primary):
    stale_connections.watch(waiting.fileno(), "node-1", lambda: primary)
    assert stale_connections.shut_stale() == 0


def test_unwatched_connection_is_not_shut(waiting):
    assert stale_connections.shut_stale() == 0


def test_reused_descriptor_is_not_shut(waiting):
    with socket.socket() as closed:
        stale_connections.watch(closed.fileno(), "node-1", lambda: "node-2")
        descriptor = closed.fileno()
    os.dup2(waiting.fileno(), descriptor)
    try:
        assert stale_connections.shut_stale() == 0
    finally:
        os.close(descriptor)
    assert stale_connections._watched == {}


def test_connection_on_a_reused_descriptor_stays_watched(waiting):
    """Another thread may reuse the descriptor while the closed connection is checked."""
    closed = stale_connections.Key(waiting.fileno(), (0, 0))
    for _ in range(2):
        stale_connections._watched[closed] = stale_connections.Watched("node-3", lambda: "node-2")
        stale_connections.watch(waiting.fileno(), "node-1", lambda: None)
        assert stale_connections.shut_stale() == 0
    assert [key.descriptor for key in stale_connections._watched] == [waiting.fileno()]
    assert closed not in stale_connections._watched


def test_unix_socket_does_not_stop_the_check(waiting):
    with socket.socketpair()[0] as unix:
        stale_connections.watch(unix.fileno(), "node-1", lambda: "node-2")
        stale_connections.watch(waiting.fileno(), "node-1", lambda: "node-2")
        assert stale_connections.shut_stale() == 1


def test_primary_is_not_queried_without_overdue_answer(monkeypatch):
    def find_primary() -> str | None:
        raise AssertionError("queried for the primary without an overdue answer")

    monkeypatch.setattr(stale_connections, "OVERDUE_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as connection:
            connection.sendall(b"SELECT 1")
            stale_connections.watch(connection.fileno(), "node-1", find_primary)
            assert stale_connections.shut_stale() == 0


def test_check_leaves_no_file_open(waiting):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    stale_connections.watch(waiting.fileno(), "node-1", lambda: None)
    before = open_files()
    for _ in range(3):
        stale_connections.shut_stale()
    assert open_files() == before


def test_process_at_its_thread_limit_runs_unwatched(monkeypatch, caplog):
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stale_connections.Watcher, "start", start)
    assert stale_connections.start_watcher() is None
    assert "can't start new thread" in caplog.text
