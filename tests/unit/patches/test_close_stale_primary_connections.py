"""A connection to a primary that froze is broken once another is the primary, and no other connection ever."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import psycopg2.extensions
import pytest
import sqlalchemy
from celery import Celery
from celery.backends.database import DatabaseBackend

from airflow_ha.patches import close_stale_primary_connections as frozen_primary

ELSEWHERE = frozenset({"192.0.2.1"})
FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


@pytest.fixture
def host(request):
    return getattr(request, "param", "127.0.0.1")


@pytest.fixture
def server(host):
    """Accepts and never answers, as a frozen process does: its kernel goes on."""
    with socket.create_server((host, 0), family=FAMILIES[host]) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def waiting(host, server, monkeypatch):
    """A connection that has waited for its answer for longer than it may."""
    monkeypatch.setattr(frozen_primary, "OVERDUE_SECONDS", 0.05)
    with socket.create_connection((host, server)) as connection:
        connection.sendall(b"SELECT 1")
        deadline = time.monotonic() + 5
        while not frozen_primary.overdue(connection):
            assert time.monotonic() < deadline
        yield connection


def service(port: int, *primary: str) -> frozen_primary.Replicated:
    """A replicated service on a port, with its primary's addresses."""
    connections = functools.partial(frozen_primary.connections_to, port)
    return frozen_primary.Replicated(connections, lambda: frozenset(primary))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], indirect=True)
def test_a_call_to_a_frozen_primary_ends_once_there_is_another(server, waiting):
    assert frozen_primary.look([service(server, *ELSEWHERE)]) == 1
    waiting.settimeout(5)
    assert waiting.recv(1) == b""


def test_a_connection_that_nobody_reads_is_shut_once(server, waiting):
    assert frozen_primary.look([service(server, *ELSEWHERE)]) == 1
    assert frozen_primary.look([service(server, *ELSEWHERE)]) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], indirect=True)
def test_a_slow_answer_of_the_primary_is_waited_for_in_any_network(host, server, waiting):
    """The primary has an address in each network; the connection leads to one of them."""
    assert frozen_primary.look([service(server, *ELSEWHERE, host)]) == 0


def test_while_there_is_no_other_primary_everything_is_waited_for(server, waiting):
    assert frozen_primary.look([service(server)]) == 0


def test_connections_to_anything_else_are_left_alone(server, waiting):
    assert frozen_primary.look([service(server + 1, *ELSEWHERE)]) == 0


def test_nobody_is_asked_while_answers_come(host, server):
    def asked() -> frozenset[str]:
        raise AssertionError("asked who is the primary, though nothing is overdue")

    connections = functools.partial(frozen_primary.connections_to, server)
    with socket.create_connection((host, server)) as connection:
        connection.sendall(b"SELECT 1")
        assert frozen_primary.look([frozen_primary.Replicated(connections, asked)]) == 0


def test_a_look_leaves_no_file_open(server, waiting):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Path(os.devnull).open():
        before = open_files()
        for _ in range(3):
            frozen_primary.look([service(server)])
        assert open_files() == before


@pytest.fixture
def tracked(monkeypatch):
    """The connections of engines: none at first."""
    monkeypatch.setattr(frozen_primary, "_engine_connections", found := set())
    return found


class Driver(SimpleNamespace):
    """A driver's connection, over a socket; like psycopg2's it has no file once it is closed."""

    def fileno(self) -> int:
        if self.socket.fileno() < 0:
            raise RuntimeError("connection already closed")
        return self.socket.fileno()

    def __hash__(self) -> int:
        return id(self)


def test_of_postgres_connections_only_an_engines_are_shut(server, waiting, tracked):
    """A trigger's own connection waits beside it, to the same port."""
    postgres = frozen_primary.Replicated(frozen_primary.engine_connections, lambda: ELSEWHERE)
    assert frozen_primary.look([postgres]) == 0
    connection = Driver(socket=waiting)
    frozen_primary.remember(connection, None)
    assert frozen_primary.look([postgres]) == 1
    waiting.close()
    assert frozen_primary.look([postgres]) == 0
    del connection
    assert not tracked


class Connection:
    """As much of a driver's connection as a pool needs."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_only_engines_that_were_reported_are_watched(tracked):
    def engine():
        return sqlalchemy.create_engine("postgresql+psycopg2://", creator=Connection, _initialize=False)

    kept = []
    ours, of_a_dag_file = engine(), engine()
    frozen_primary.attach(ours)
    kept.append(of_a_dag_file.raw_connection())
    assert len(tracked) == 0
    kept.append(ours.raw_connection())
    assert len(tracked) == 1


def test_the_drivers_connections_can_be_referred_to_weakly():
    for kind in (psycopg2.extensions.connection, psycopg.AsyncConnection):
        assert kind.__weakrefoffset__


def test_the_primary_has_every_address_of_its_name(monkeypatch):
    def getaddrinfo(host, *_, **_more):
        found = {"patroni-1": ("10.0.0.5", "10.1.0.5", "fd00::5", "fe80::5%2", "::ffff:10.2.0.5")}[host]
        return [(None, None, None, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert frozen_primary.addresses("patroni-1") == {"10.0.0.5", "10.1.0.5", "fd00::5", "fe80::5", "10.2.0.5"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], indirect=True)
def test_patroni_is_asked_by_ipv4_and_ipv6(host, monkeypatch):
    class Patroni(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/primary" else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(http.server.HTTPServer):
        address_family = FAMILIES[host]

    with Server((host, 0), Patroni) as patroni:
        monkeypatch.setattr(frozen_primary, "PATRONI_PORT", patroni.server_address[1])
        threading.Thread(target=patroni.handle_request, daemon=True).start()
        assert frozen_primary.postgres_primary([host]) == {host}


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_primary, "SECRETS", tmp_path)
    return tmp_path


REPLICATED = "postgresql+psycopg2://u:p@/d?host=patroni-1:5432&host=patroni-2:5432&target_session_attrs=read-write"


def test_with_replicas_patroni_and_the_sentinels_are_asked(secrets, monkeypatch):
    (secrets / "celery_result_backend").write_text(f"db+{REPLICATED}")
    (secrets / "celery_broker_url").write_text("sentinel://:p@sentinel:26379/0;sentinel://:p@[fd00::7]:26379/0")
    (secrets / "celery_sentinel_kwargs").write_text('{"password": "p"}')
    asked: list[object] = []
    monkeypatch.setattr(frozen_primary, "postgres_primary", lambda nodes: asked.append(nodes))
    monkeypatch.setattr(frozen_primary, "redis_primary", lambda *given: asked.append(given))
    for one in frozen_primary.replicated_services():
        one.primary()
    assert asked == [["patroni-1", "patroni-2"], (["sentinel", "fd00::7"], "airflow", {"password": "p"})]


@pytest.mark.parametrize(
    ("query", "nodes"),
    [
        ("host=a:1&host=b:2", ["a", "b"]),
        ("host=a,b&port=1,2", ["a", "b"]),
        ("host=fd00::5,fd00::6", ["fd00::5", "fd00::6"]),
        ("connect_timeout=3", []),
    ],
)
def test_nodes_are_read_in_every_form_of_a_url(query, nodes):
    assert frozen_primary.postgres_nodes(f"postgresql+psycopg2://u:p@/d?{query}") == nodes


def test_without_replicas_nothing_is_watched(secrets):
    (secrets / "sql_alchemy_conn").write_text("postgresql+psycopg2://u:p@postgres:5432/d?connect_timeout=3")
    (secrets / "celery_broker_url").write_text("redis://:p@redis:6379/0")
    assert frozen_primary.replicated_services() == []


def test_a_patroni_that_does_not_answer_is_not_the_primary(monkeypatch):
    monkeypatch.setattr(frozen_primary, "PATRONI_PORT", 1)
    assert frozen_primary.postgres_primary(["127.0.0.1"]) == frozenset()


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == frozen_primary.THREAD]


@pytest.fixture
def pool_process(secrets, tmp_path, monkeypatch):
    """A process of a worker's pool where Postgres has replicas; its result backend, and the threads at each write."""
    (secrets / "celery_result_backend").write_text(f"db+{REPLICATED}")
    monkeypatch.setattr(DatabaseBackend, "store_result", DatabaseBackend.store_result)
    during: list[list[str]] = []
    backend = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results").backend
    write = backend._store_result

    def store(*arguments, **more):
        during.append(watchers())
        return write(*arguments, **more)

    monkeypatch.setattr(backend, "_store_result", store)
    frozen_primary.watch_result_writes()
    return backend, during


def test_a_pool_process_has_a_thread_only_while_it_writes(pool_process):
    """It forks each task, and has none beside that."""
    backend, during = pool_process
    assert watchers() == []
    backend.store_result("task", None, "SUCCESS")
    assert during == [[frozen_primary.THREAD]]
    assert watchers() == []
    assert backend.get_task_meta("task", cache=False)["status"] == "SUCCESS"


def test_a_write_that_fails_leaves_no_thread(pool_process, monkeypatch):
    backend, _ = pool_process

    def fail(*_, **_more):
        raise ConnectionError("the primary froze")

    monkeypatch.setattr(backend, "_store_result", fail)
    with pytest.raises(ConnectionError):
        backend.store_result("task", None, "SUCCESS")
    assert watchers() == []


def test_a_write_to_a_frozen_primary_ends_once_there_is_another(pool_process, monkeypatch, server, waiting, tracked):
    backend, _ = pool_process
    connection = Driver(socket=waiting)
    frozen_primary.remember(connection, None)
    monkeypatch.setattr(frozen_primary, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(frozen_primary, "postgres_primary", lambda nodes: ELSEWHERE)
    monkeypatch.setattr(backend, "_store_result", lambda *_, **_more: backend.answers.append(waiting.recv(1)))
    backend.answers = []
    waiting.settimeout(10)
    backend.store_result("task", None, "SUCCESS")
    assert backend.answers == [b""]


FORK = """
import multiprocessing, pathlib, sys, threading
from airflow_ha.patches import close_stale_primary_connections as frozen_primary
frozen_primary.SECRETS = pathlib.Path(sys.argv[2])
frozen_primary.start_in(sys.argv[1])
def threads():
    print([thread.name for thread in threading.enumerate()])
health_server = multiprocessing.get_context("fork").Process(target=threads)
health_server.start()
health_server.join()
"""


@pytest.mark.parametrize(("component", "watched"), [("scheduler", True), ("dag-processor", False)])
def test_a_schedulers_health_server_is_watched_too(secrets, component, watched):
    (secrets / "sql_alchemy_conn").write_text("postgresql+psycopg2://u:p@/d?host=patroni-1:5432&host=patroni-2:5432")
    done = subprocess.run(
        [sys.executable, "-c", FORK, component, str(secrets)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ("frozen-primary" in done.stdout) is watched
