"""What the probe asks of the database and of Redis, and whom it asks when there are several."""

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
    """Sets what the probe's secret files hold."""

    def put(text: str) -> None:
        (tmp_path / "secret").write_text(text + "\n")

    monkeypatch.setattr(dependencies, "Path", lambda _: tmp_path / "secret")
    return put


# ---- the database


class Database:
    """A connection whose one answer is this row."""

    def __init__(self, row: tuple[float] | None):
        self.row, self.asked, self.closed = row, (), False

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
        self.asked = values

    def fetchone(self):
        return self.row

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("row", "age"), [((7.5,), 7.5), (None, None)], ids=["a running job", "none"])
def test_the_age_is_that_of_the_heartbeat_of_this_hosts_job(monkeypatch, secret, row, age):
    secret("postgresql+psycopg2://airflow:p@postgres/airflow")
    database = Database(row)
    monkeypatch.setattr(psycopg2, "connect", database.connect)
    assert dependencies.job_heartbeat_age("TriggererJob") == age
    assert database.asked == ("TriggererJob", socket.gethostname())
    assert database.url == "postgresql://airflow:p@postgres/airflow"
    assert database.closed


def test_a_database_that_ends_the_conversation_is_away(monkeypatch, secret):
    secret("postgresql+psycopg2://airflow:p@postgres/airflow")
    database = Database(None)

    def cancel(*_):
        raise psycopg2.OperationalError("terminating connection")

    monkeypatch.setattr(database, "execute", cancel)
    monkeypatch.setattr(psycopg2, "connect", database.connect)
    with pytest.raises(dependencies.DatabaseAwayError, match="terminating connection"):
        dependencies.job_heartbeat_age("TriggererJob")
    assert database.closed


# ---- Redis


@contextmanager
def redis_server(answer: Callable[[list[str]], str]) -> Iterator[int]:
    """A Redis on a free port, which gives these answers in Redis' own protocol."""

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
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def alive(password: str, heard: list[str]) -> Callable[[list[str]], str]:
    """The answers of a Redis that lives, and takes this password."""

    def answer(words: list[str]) -> str:
        heard.append(words[0])
        if words[0] == "AUTH":
            return "+OK\r\n" if words[-1] == password else "-WRONGPASS invalid\r\n"
        return "+PONG\r\n" if words[0] == "PING" else "+OK\r\n"

    return answer


def sentinel(password: str, primary: int) -> Callable[[list[str]], str]:
    """The answers of a Sentinel that takes this password, and calls the Redis on this port the primary."""
    known = ["name", "airflow", "ip", "127.0.0.1", "port", str(primary), "flags", "master", "num-other-sentinels", "2"]
    masters = f"*1\r\n*{len(known)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in known)

    def answer(words: list[str]) -> str:
        return masters if words[0] == "SENTINEL" else alive(password, [])(words)

    return answer


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_redis_that_answers_is_there(secret):
    heard: list[str] = []
    with redis_server(alive("pass/word", heard)) as port:
        secret(f"redis://:pass%2Fword@127.0.0.1:{port}/0")
        assert dependencies.broker_answers()
    assert "PING" in heard


def test_a_redis_that_refuses_the_password_or_does_not_listen_is_away(secret):
    with redis_server(alive("another", [])) as port:
        secret(f"redis://:mine@127.0.0.1:{port}/0")
        assert not dependencies.broker_answers()
    with closed_port() as port:
        secret(f"redis://:mine@127.0.0.1:{port}/0")
        assert not dependencies.broker_answers()


def test_of_several_the_one_is_asked_that_a_sentinel_calls_the_primary_though_the_first_sentinel_is_away(secret):
    heard: list[str] = []
    with closed_port() as gone, redis_server(alive("pass/word", heard)) as primary:
        with redis_server(sentinel("pass/word", primary)) as there:
            secret(f"sentinel://:pass%2Fword@127.0.0.1:{gone}/0;sentinel://:pass%2Fword@127.0.0.1:{there}/0")
            assert dependencies.broker_answers()
    assert "PING" in heard


def test_a_primary_that_is_away_is_no_broker_though_the_sentinels_answer(secret):
    with closed_port() as gone, redis_server(sentinel("p", gone)) as there:
        secret(f"sentinel://:p@127.0.0.1:{there}/0")
        assert not dependencies.broker_answers()


def test_of_several_databases_the_primary_is_asked():
    url = "postgresql+psycopg2://airflow:p@/airflow?host=patroni-1:5432&host=patroni-2:5432&target_session_attrs=rw"
    expected = "postgresql://airflow:p@patroni-1:5432,patroni-2:5432/airflow?target_session_attrs=rw"
    assert dependencies.libpq_url(url) == expected
    single = "postgresql+psycopg2://airflow:p@postgres:5432/airflow?connect_timeout=3"
    assert dependencies.libpq_url(single) == "postgresql://airflow:p@postgres:5432/airflow?connect_timeout=3"
