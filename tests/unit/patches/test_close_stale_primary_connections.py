"""A connection to a primary that froze is broken once another is the primary, and no other connection ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_ha.patches import close_stale_primary_connections as frozen_primary


@pytest.fixture
def server():
    """Accepts and never answers, as a frozen process does: its kernel goes on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def waiting(server, monkeypatch):
    """A connection that has waited for its answer for longer than it may."""
    monkeypatch.setattr(frozen_primary, "OVERDUE_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(b"SELECT 1")
        deadline = time.monotonic() + 5
        while not frozen_primary.overdue(connection):
            assert time.monotonic() < deadline
        yield connection


def test_a_call_that_waits_for_a_frozen_primary_ends_once_another_is_the_primary(server, waiting):
    assert frozen_primary.look({server: lambda: "192.0.2.1"}) == 1
    waiting.settimeout(5)
    assert waiting.recv(1) == b""


def test_a_connection_that_nobody_reads_is_shut_once(server, waiting):
    assert frozen_primary.look({server: lambda: "192.0.2.1"}) == 1
    assert frozen_primary.look({server: lambda: "192.0.2.1"}) == 0


def test_an_answer_that_takes_long_is_waited_for_where_the_primary_is_who_was_asked(server, waiting):
    assert frozen_primary.look({server: lambda: "127.0.0.1"}) == 0


def test_while_there_is_no_other_primary_everything_is_waited_for(server, waiting):
    assert frozen_primary.look({server: lambda: None}) == 0


def test_connections_to_anything_else_are_left_alone(server, waiting):
    assert frozen_primary.look({server + 1: lambda: "192.0.2.1"}) == 0


def test_nobody_is_asked_while_answers_come(server):
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(b"SELECT 1")

        def asked() -> str | None:
            raise AssertionError("asked who is the primary, though nothing is overdue")

        assert frozen_primary.look({server: asked}) == 0


def test_a_look_leaves_no_file_open(server, waiting):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Path(os.devnull).open():
        before = open_files()
        for _ in range(3):
            frozen_primary.look({server: lambda: None})
        assert open_files() == before


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_primary, "SECRETS", tmp_path)
    return tmp_path


def test_with_replicas_patroni_and_the_sentinels_are_asked(secrets, monkeypatch):
    url = "db+postgresql+psycopg2://u:p@/d?host=patroni-1:5432&host=patroni-2:5432&target_session_attrs=read-write"
    (secrets / "celery_result_backend").write_text(url)
    (secrets / "celery_broker_url").write_text("sentinel://:p@sentinel:26379/0;sentinel://:p@sentinel-1:26379/0")
    (secrets / "celery_sentinel_kwargs").write_text('{"password": "p"}')
    asked: list[object] = []
    monkeypatch.setattr(frozen_primary, "postgres_primary", lambda nodes: asked.append(nodes))
    monkeypatch.setattr(frozen_primary, "redis_primary", lambda *given: asked.append(given))
    for find in frozen_primary.find_primaries().values():
        find()
    assert asked == [["patroni-1", "patroni-2"], (["sentinel", "sentinel-1"], "airflow", {"password": "p"})]


def test_without_replicas_nothing_is_watched(secrets):
    (secrets / "sql_alchemy_conn").write_text("postgresql+psycopg2://u:p@postgres:5432/d?connect_timeout=3")
    (secrets / "celery_broker_url").write_text("redis://:p@redis:6379/0")
    assert frozen_primary.find_primaries() == {}


def test_a_patroni_that_does_not_answer_is_not_the_primary(monkeypatch):
    monkeypatch.setattr(frozen_primary, "PATRONI_PORT", 1)
    assert frozen_primary.postgres_primary(["127.0.0.1"]) is None


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
