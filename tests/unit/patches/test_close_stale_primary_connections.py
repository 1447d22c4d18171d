"""A query to a frozen Postgres fails once another node is the primary, on Airflow's dag_engine engines only."""

from __future__ import annotations

import asyncio
import http.server
import os
import subprocess
import sys
import threading

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from airflow_ha.patches import engines, stale_connections
from tests.unit.patches.frozen import Postgres
from tests.unit.patches.loading import applied

ONE = sqlalchemy.text("SELECT 1")


@pytest.fixture
def patroni():
    """Patroni of both nodes: `localhost`, where Postgres runs, and `127.0.0.1`. Tests set `primary`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_primary = self.headers["Host"].split(":")[0] == self.server.primary
            self.send_response(200 if is_primary else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.primary = "localhost"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def module(monkeypatch, patroni):
    """The patch, applied with short timeouts."""
    monkeypatch.setattr(engines, "_METADATA", [])
    monkeypatch.setattr(engines, "_RESULTS", [])
    monkeypatch.setattr(stale_connections, "_watched", {})
    monkeypatch.setattr(stale_connections, "_watcher", None)
    monkeypatch.setattr(stale_connections, "OVERDUE_SECONDS", 0.1)
    monkeypatch.setattr(stale_connections, "CHECK_SECONDS", 0.05)
    with applied("close_stale_primary_connections") as patch:
        patch.PATRONI_PORT = patroni.server_port
        yield patch
    if stale_connections._watcher is not None:
        stale_connections._watcher.stop()


@pytest.fixture
def postgres():
    server = Postgres()
    yield server
    server.close()


def url(postgres: Postgres, driver: str = "psycopg2", other: str = "&host=127.0.0.1:{port}") -> str:
    return f"postgresql+{driver}://u:p@/d?host=localhost:{postgres.port}" + other.format(port=postgres.port)


def watchers() -> int:
    return sum(isinstance(thread, stale_connections.Watcher) for thread in threading.enumerate())


def run_until_closed(connection: sqlalchemy.Connection) -> None:
    """Run a query whose connection another thread closes."""
    with pytest.raises(sqlalchemy.exc.OperationalError):
        connection.execute(ONE)


@pytest.mark.parametrize("report_engine", [engines.metadata_engine_created, engines.result_engine_created])
@pytest.mark.usefixtures("module")
def test_query_to_a_frozen_primary_fails_after_failover(postgres, patroni, report_engine):
    engine = sqlalchemy.create_engine(url(postgres))
    report_engine(engine)
    with engine.connect() as connection:
        assert connection.scalar(ONE) == "1"
        patroni.primary = "127.0.0.1"
        postgres.is_frozen.set()
        with pytest.raises(sqlalchemy.exc.OperationalError):
            connection.execute(ONE)


@pytest.mark.usefixtures("module")
def test_async_query_to_a_frozen_primary_fails_after_failover(postgres, patroni):
    async def query() -> None:
        engine = create_async_engine(url(postgres, "psycopg_async"))
        engines.metadata_engine_created(engine.sync_engine)
        async with engine.connect() as connection:
            patroni.primary = "127.0.0.1"
            postgres.is_frozen.set()
            with pytest.raises(sqlalchemy.exc.OperationalError):
                await connection.execute(ONE)

    asyncio.run(asyncio.wait_for(query(), 20))


@pytest.mark.usefixtures("module")
def test_engine_of_dag_code_is_not_affected(postgres, patroni):
    metadata_engine, dag_engine = (sqlalchemy.create_engine(url(postgres)) for _ in range(2))
    engines.metadata_engine_created(metadata_engine)
    with metadata_engine.connect() as connection, dag_engine.connect() as dag_connection:
        patroni.primary = "127.0.0.1"
        postgres.is_frozen.set()
        slow = threading.Thread(target=run_until_closed, args=(dag_connection,))
        slow.start()
        with pytest.raises(sqlalchemy.exc.OperationalError):
            connection.execute(ONE)
        slow.join(1)
        is_waiting = slow.is_alive()
        postgres.close()
        slow.join(10)
    assert is_waiting


@pytest.mark.usefixtures("module")
def test_slow_query_on_the_primary_is_not_ended(postgres, patroni):
    engine = sqlalchemy.create_engine(url(postgres))
    engines.metadata_engine_created(engine)
    with engine.connect() as connection:
        postgres.is_frozen.set()
        slow = threading.Thread(target=run_until_closed, args=(connection,))
        slow.start()
        slow.join(1)
        assert slow.is_alive()
        patroni.primary = "127.0.0.1"
        slow.join(10)
        assert not slow.is_alive()


@pytest.mark.usefixtures("module")
def test_pool_process_has_a_thread_only_while_connected(postgres):
    engine = sqlalchemy.create_engine(url(postgres))
    engines.result_engine_created(engine)
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(ONE)
            assert watchers() == 1
        assert watchers() == 0


@pytest.mark.usefixtures("module")
def test_database_without_replicas_is_not_watched(postgres):
    for report_engine in (engines.metadata_engine_created, engines.result_engine_created):
        engine = sqlalchemy.create_engine(url(postgres, other=""))
        report_engine(engine)
        with engine.connect() as connection:
            connection.execute(ONE)
            assert watchers() == 0
    assert stale_connections._watched == {}


def test_unreachable_patroni_is_not_the_primary(module):
    module.PATRONI_PORT = 1
    assert module.postgres_primary(("127.0.0.1", "localhost")) is None


FORK = """
import multiprocessing, sys, threading
import sqlalchemy
from airflow_ha.patches import close_stale_primary_connections, engines
close_stale_primary_connections.apply()
engine = sqlalchemy.create_engine(sys.argv[1])
engines.metadata_engine_created(engine)
connection = engine.connect()
def threads():
    print([thread.name for thread in threading.enumerate()])
health_server = multiprocessing.get_context("fork").Process(target=threads)
health_server.start()
health_server.join()
"""


@pytest.mark.parametrize(("component", "is_watched"), [("scheduler", True), ("dag-processor", False)])
def test_only_a_schedulers_fork_starts_a_watcher(postgres, component, is_watched):
    done = subprocess.run(
        [sys.executable, "-c", FORK, url(postgres)],
        env={**os.environ, "AIRFLOW_HA_COMPONENT": component},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ("stale-connections" in done.stdout) is is_watched
