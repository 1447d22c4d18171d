"""A connection to the metadata database is retried during an outage, unless the refusal is permanent."""

from __future__ import annotations

import socket
import sqlite3
import struct
import threading
import time

import pytest
import sqlalchemy

from airflow_ha.patches import connect_sqlstate, db_connect_retry


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shorten the intervals of the patch."""
    monkeypatch.setattr(db_connect_retry, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(db_connect_retry, "PATIENCE_SECONDS", 0.5)


@pytest.fixture
def database(tmp_path, monkeypatch):
    """An engine whose next connections fail with the messages in a list, and that list."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database")
    refusals: list[str] = []
    connect_to_database = engine.dialect.connect

    def connect(*arguments, **options):
        if refusals:
            raise sqlite3.OperationalError(refusals.pop(0))
        return connect_to_database(*arguments, **options)

    monkeypatch.setattr(engine.dialect, "connect", connect)
    return engine, refusals


class Postgres:
    """A server that refuses every connection with one SQLSTATE, in German: https://www.postgresql.org/docs/17/protocol.html.

    Attributes:
        port: Port of the server.
        refused: Number of refused connections.
    """

    def __init__(self, sqlstate: str) -> None:
        fields = f"SFATAL\0VFATAL\0C{sqlstate}\0MPasswort-Authentifizierung fehlgeschlagen\0\0".encode()
        self._answer = b"E" + struct.pack("!I", len(fields) + 4) + fields
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.refused = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                while header := connection.recv(8):
                    length, code = struct.unpack("!II", header)
                    if code in (80877103, 80877104):  # SSLRequest, GSSENCRequest
                        connection.sendall(b"N")
                        continue
                    connection.recv(length - 8)
                    connection.sendall(self._answer)
                    self.refused += 1
                    break

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server(request):
    postgres = Postgres(request.param)
    yield postgres
    postgres.close()


def test_connection_is_retried_until_a_primary_answers(database):
    engine, refusals = database
    db_connect_retry.attach(engine)
    refusals += ["Connection refused", "session is read-only", "the database system is starting up"]
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    assert not refusals


def test_other_engine_fails_at_once(database):
    """For example, an engine that DAG code creates for its own database."""
    db_connect_retry.apply()
    engine, refusals = database
    refusals += ["Connection refused"]
    with pytest.raises(sqlalchemy.exc.OperationalError):
        engine.connect()


def test_retries_end_after_the_limit(database):
    engine, refusals = database
    db_connect_retry.attach(engine)
    refusals += ["Connection refused"] * 1000
    with pytest.raises(sqlalchemy.exc.OperationalError, match="refused"):
        engine.connect()


def test_cpu_wait_does_not_count_towards_the_limit(database, monkeypatch):
    engine, refusals = database
    db_connect_retry.attach(engine)
    started = time.monotonic()
    monkeypatch.setattr(db_connect_retry, "cpu_wait", lambda: max(0.0, time.monotonic() - started - 0.2))
    refusals += ["Connection refused"] * 80  # 0.8 s, in which the thread had a CPU for 0.2 s
    engine.connect().close()
    assert time.monotonic() - started > db_connect_retry.PATIENCE_SECONDS


@pytest.mark.parametrize("server", ["28P01", "28000", "3D000"], indirect=True)
def test_permanent_refusal_fails_at_once_in_any_language(server):
    engine = sqlalchemy.create_engine(f"postgresql+psycopg2://airflow:wrong@127.0.0.1:{server.port}/airflow")
    db_connect_retry.attach(engine)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="fehlgeschlagen"):
        engine.connect()
    assert server.refused == 2, "the connection, and the one that reads the SQLSTATE"


@pytest.mark.parametrize("server", ["28P01"], indirect=True)
@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("no such symbol"), ValueError("filedes")])
def test_unreadable_sqlstate_does_not_hide_the_refusal(server, monkeypatch, error):
    def fail_to_load(_name: str) -> None:
        raise error

    monkeypatch.setattr(connect_sqlstate.ctypes, "CDLL", fail_to_load)
    engine = sqlalchemy.create_engine(f"postgresql+psycopg2://airflow:wrong@127.0.0.1:{server.port}/airflow")
    db_connect_retry.attach(engine)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="fehlgeschlagen"):
        engine.connect()


@pytest.mark.parametrize("server", ["57P03", "53300"], indirect=True)
def test_temporary_refusal_is_retried(server):
    """SQLSTATEs of a database that is starting up, and of too many connections."""
    engine = sqlalchemy.create_engine(f"postgresql+psycopg2://airflow:right@127.0.0.1:{server.port}/airflow")
    db_connect_retry.attach(engine)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        engine.connect()
    assert server.refused > 2
