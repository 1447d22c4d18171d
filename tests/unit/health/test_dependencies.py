"""The probe's requests to the database and to Redis, with one server and with several."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
import pytest

from airflow_ha.health import dependencies


@pytest.fixture
def secret(monkeypatch, tmp_path):
    """Set the content of the probe's secret files."""

    def set_secret(text: str) -> None:
        for name in ("sql_alchemy_conn", "celery_broker_url"):
            (tmp_path / name).write_text(text + "\n")

    monkeypatch.setattr(dependencies, "SECRETS", tmp_path)
    return set_secret


# ---- the database


class Database:
    """A fake connection that returns one row."""

    def __init__(self, row: tuple[float] | None):
        self.row, self.values, self.closed = row, (), False

    def connect(self, url: str, **options):
        self.url, self.options = url, options
        return self

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def execute(self, statement: str, values: tuple[str, ...]):
        self.values = values

    def fetchone(self):
        return self.row

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("row", "age"), [((7.5,), 7.5), (None, None)], ids=["a running job", "none"])
def test_age_is_that_of_the_heartbeat_of_this_hosts_job(monkeypatch, secret, row, age):
    secret("postgresql+psycopg2://airflow:p@postgres/airflow")
    database = Database(row)
    monkeypatch.setattr(psycopg2, "connect", database.connect)
    assert dependencies.job_heartbeat_age("TriggererJob") == age
    assert database.values == ("TriggererJob", socket.gethostname())
    assert database.url == "postgresql://airflow:p@postgres/airflow"
    assert database.closed


def test_database_that_closes_the_connection_is_down(monkeypatch, secret):
    secret("postgresql+psycopg2://airflow:p@postgres/airflow")
    database = Database(None)

    def cancel(*_):
        raise psycopg2.OperationalError("terminating connection")

    monkeypatch.setattr(database, "execute", cancel)
    monkeypatch.setattr(psycopg2, "connect", database.connect)
    with pytest.raises(dependencies.DatabaseDownError, match="terminating connection"):
        dependencies.job_heartbeat_age("TriggererJob")
    assert database.closed


# ---- Redis


@contextmanager
def redis_server(answer: Callable[[list[str]], str]) -> Iterator[int]:
    """Serve these replies in Redis' protocol on a free port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while (head := self.rfile.readline()).startswith(b"*"):
                words = []
                for _ in range(int(head[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2].decode())
                self.wfile.write(answer(words).encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def alive(password: str, commands: list[str]) -> Callable[[list[str]], str]:
    """Return the replies of a live Redis that accepts this password; `commands` receives its commands."""

    def answer(words: list[str]) -> str:
        commands.append(words[0])
        if words[0] == "AUTH":
            return "+OK\r\n" if words[1:] in ([password], ["worker", password]) else "-WRONGPASS invalid\r\n"
        return "+PONG\r\n" if words[0] == "PING" else "+OK\r\n"

    return answer


def sentinel(password: str, primary: int) -> Callable[[list[str]], str]:
    """Return the replies of a Sentinel that accepts this password and names the Redis on this port as primary."""
    known = ["name", "airflow", "ip", "127.0.0.1", "port", str(primary), "flags", "master", "num-other-sentinels", "2"]
    masters = f"*1\r\n*{len(known)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in known)

    def answer(words: list[str]) -> str:
        return masters if words[0] == "SENTINEL" else alive(password, [])(words)

    return answer


@contextmanager
def closed_port() -> Iterator[int]:
    """Reserve a port without a listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_redis_that_responds_is_up(secret):
    commands: list[str] = []
    with redis_server(alive("pass/word", commands)) as port:
        secret(f"redis://:pass%2Fword@127.0.0.1:{port}/0")
        assert dependencies.is_broker_up()
    assert "PING" in commands


def test_redis_that_refuses_password_or_connection_is_down(secret):
    with redis_server(alive("another", [])) as port:
        secret(f"redis://:mine@127.0.0.1:{port}/0")
        assert not dependencies.is_broker_up()
    with closed_port() as port:
        secret(f"redis://:mine@127.0.0.1:{port}/0")
        assert not dependencies.is_broker_up()


def test_primary_is_found_while_the_first_sentinel_is_down(secret):
    commands: list[str] = []
    with closed_port() as gone, redis_server(alive("pass/word", commands)) as primary:
        with redis_server(sentinel("pass/word", primary)) as running:
            login = "worker:pass%2Fword"
            secret(f"sentinel://{login}@127.0.0.1:{gone}/0;sentinel://{login}@127.0.0.1:{running}/0")
            assert dependencies.is_broker_up()
    assert "PING" in commands


def test_failed_primary_is_down_while_sentinels_respond(secret):
    with closed_port() as gone, redis_server(sentinel("p", gone)) as running:
        secret(f"sentinel://:p@127.0.0.1:{running}/0")
        assert not dependencies.is_broker_up()


def test_url_with_several_hosts_selects_the_primary():
    url = "postgresql+psycopg2://airflow:p@/airflow?host=patroni-1:5432&host=patroni-2:5432&target_session_attrs=rw"
    expected = "postgresql://airflow:p@patroni-1:5432,patroni-2:5432/airflow?target_session_attrs=rw"
    assert dependencies.libpq_url(url) == expected
    single = "postgresql+psycopg2://airflow:p@postgres:5432/airflow?connect_timeout=3"
    assert dependencies.libpq_url(single) == "postgresql://airflow:p@postgres:5432/airflow?connect_timeout=3"
