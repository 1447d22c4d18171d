"""All processes of a container resolve the exporter in the background, at most once per interval."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from airflow_ha.telemetry import exporter_address as module
from airflow_ha.telemetry.exporter_address import LOOKUP_INTERVAL, Address, shared_directory


class NameServer:
    """A fake getaddrinfo() that counts calls; a call waits while `open` is clear."""

    def __init__(self) -> None:
        self.answer: tuple[str, int] | None = ("127.0.0.1", 9125)
        self.calls = 0
        self.open = threading.Event()
        self.open.set()

    def __call__(self, host, port, family, kind, protocol, flags):
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.calls += 1
        assert self.open.wait(10)
        if self.answer is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, kind, protocol, "", self.answer)]


@pytest.fixture
def name_server(monkeypatch):
    server = NameServer()
    monkeypatch.setattr(module.socket, "getaddrinfo", server)
    yield server
    server.open.set()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def address():
    """An Address whose lookups the test can wait for."""

    class Watched(Address):
        def __init__(self):
            self.lookup_done = threading.Event()
            super().__init__(
                "exporter",
                9125,
                socket.AF_INET,
                directory=shared_directory(),
                on_lookup_done=lambda: self.lookup_done.set(),
            )

        def refresh_and_wait(self):
            self.lookup_done.clear()
            self.refresh()
            if self._is_resolving:
                assert self.lookup_done.wait(10)

    return Watched


def test_numeric_address_is_never_resolved(monkeypatch):
    address = Address("127.0.0.1", 9125, socket.AF_INET, directory=shared_directory())
    monkeypatch.setattr(module.socket, "getaddrinfo", None)
    address.after_fork()
    address.refresh()
    assert address.current == ("127.0.0.1", 9125)


def test_slow_lookup_blocks_no_caller(name_server, address):
    name_server.open.clear()
    slow = address()
    slow.refresh()
    assert (slow.current, slow.is_lookup_done) == (None, False)
    name_server.open.set()
    assert slow.lookup_done.wait(10)
    assert slow.current == ("127.0.0.1", 9125)


def test_changed_address_is_found_at_the_next_lookup(name_server, address, clock):
    moving = address()
    moving.refresh_and_wait()
    name_server.answer = ("127.0.0.2", 9125)
    clock[0] += LOOKUP_INTERVAL - 0.1
    moving.refresh_and_wait()
    assert moving.current == ("127.0.0.1", 9125)
    clock[0] += 0.2
    moving.refresh_and_wait()
    assert moving.current == ("127.0.0.2", 9125)


def test_failed_lookup_keeps_the_last_address(name_server, address, clock):
    moving = address()
    moving.refresh_and_wait()
    name_server.answer = None
    clock[0] += LOOKUP_INTERVAL
    moving.refresh_and_wait()
    assert name_server.calls == 2
    assert moving.current == ("127.0.0.1", 9125)


@pytest.mark.parametrize("answer", [("127.0.0.1", 9125), None])
def test_thousand_processes_share_one_lookup_per_interval(name_server, address, clock, answer):
    name_server.answer = answer
    address().refresh_and_wait()
    others = [address() for _ in range(1000)]
    for other in others:
        other.refresh_and_wait()
    assert name_server.calls == 1
    assert {(other.current, other.is_lookup_done) for other in others} == {(answer, True)}


def test_other_processes_keep_the_address_during_a_lookup(name_server, address, clock):
    address().refresh_and_wait()
    clock[0] += LOOKUP_INTERVAL
    name_server.open.clear()
    first, second = address(), address()
    first.refresh()
    second.refresh()
    assert second.current == ("127.0.0.1", 9125)
    name_server.open.set()
    assert first.lookup_done.wait(10)
    assert name_server.calls == 2


def test_forked_child_starts_its_own_lookup(name_server, address):
    name_server.open.clear()
    child = address()
    child.refresh()
    name_server.open.set()
    assert child.lookup_done.wait(10)
    child._is_resolving = True  # the state at the fork, which does not copy the thread
    child.after_fork()
    child.current = None
    child.refresh()
    assert child.current == ("127.0.0.1", 9125)


def test_lookup_is_retried_after_no_thread_was_available(name_server, address, clock, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    moving = address()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        moving.refresh()
    clock[0] += LOOKUP_INTERVAL
    moving.refresh_and_wait()
    assert moving.current == ("127.0.0.1", 9125)


@pytest.mark.parametrize("content", ["", "[", "{}", "[1,2]", '[["a"], "x"]', "[null, null]", "[[], 1]", "\xff"])
def test_invalid_file_is_ignored(name_server, address, content):
    first = address()
    first._file.write_text(content)
    first.refresh_and_wait()
    assert first.current == ("127.0.0.1", 9125)
    assert json.loads(first._file.read_text())[0] == ["127.0.0.1", 9125]


def test_directory_that_others_can_write_is_refused(tmp_path):
    directory = shared_directory()
    assert directory is not None
    directory.chmod(0o777)
    assert shared_directory() is None


def test_symlink_in_place_of_the_directory_is_refused(tmp_path):
    directory = shared_directory()
    directory.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)
    assert shared_directory() is None


def test_without_a_directory_each_process_resolves_by_itself(name_server, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    assert shared_directory() is None
    lookup_done = threading.Event()
    alone = Address("exporter", 9125, socket.AF_INET, directory=None, on_lookup_done=lookup_done.set)
    alone.refresh()
    assert lookup_done.wait(10)
    assert alone.current == ("127.0.0.1", 9125)


@pytest.mark.parametrize(("host", "port"), [(None, 9125), ("", 9125), ("a..b", 9125), ("größe", 9125), ("x" * 300, 1)])
def test_invalid_host_is_never_resolved_and_never_raises(host, port):
    lookup_done = threading.Event()
    invalid = Address(host, port, socket.AF_INET, on_lookup_done=lookup_done.set)
    invalid.refresh()
    assert lookup_done.wait(30)
    assert (invalid.current, invalid.is_lookup_done) == (None, True)
