"""A worker that waits for a task at a frozen Redis reconnects once another node is the primary."""

from __future__ import annotations

import select

import kombu
import pytest
from kombu.transport.redis import SentinelChannel
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import Sentinel

from airflow_ha.patches import stale_connections
from tests.unit.patches.frozen import Redis
from tests.unit.patches.loading import applied


@pytest.fixture
def servers():
    """A Sentinel, and the Redis that it reports as the primary."""
    sentinel, redis = Redis(), Redis()
    sentinel.primary = ("localhost", redis.port)
    yield sentinel, redis
    sentinel.close()
    redis.close()


@pytest.fixture
def module(monkeypatch):
    monkeypatch.setattr(stale_connections, "_watched", {})
    monkeypatch.setattr(stale_connections, "_watcher", None)
    monkeypatch.setattr(stale_connections, "OVERDUE_SECONDS", 0.1)
    monkeypatch.setattr(stale_connections, "CHECK_SECONDS", 0.05)
    with applied("close_stale_broker_connections") as patch:
        yield patch
    if stale_connections._watcher is not None:
        stale_connections._watcher.stop()


class Worker:
    """The connection on which a worker waits for a task.

    Attributes:
        connection: The waiting connection.
    """

    def __init__(self, sentinel: Redis) -> None:
        options = {"master_name": "airflow", "sentinel_kwargs": {"socket_timeout": 5}, "socket_timeout": 0.2}
        broker = kombu.Connection(f"sentinel://127.0.0.1:{sentinel.port}", transport_options=options)
        self.channel = broker.default_channel
        self.connection = self.channel._create_client(asynchronous=True).connection_pool.get_connection()
        self.connection.send_command("BRPOP", "default", 1)

    def is_readable(self, seconds: float) -> bool:
        """Return whether the connection becomes readable within some seconds."""
        return bool(select.select([self.connection._sock], [], [], seconds)[0])


@pytest.mark.usefixtures("module")
def test_wait_ends_once_another_node_is_the_primary(servers):
    sentinel, _ = servers
    worker = Worker(sentinel)
    assert not worker.is_readable(0.5), "the connection to the primary stays open"
    sentinel.primary = ("redis-2", 6379)
    assert worker.is_readable(10)
    assert worker.connection._sock.recv(1) == b""


def test_scheduler_call_ends_by_socket_timeout(servers):
    """A scheduler needs no watcher thread: only a worker's event loop waits without a timeout."""
    sentinel, redis = servers
    worker = Worker(sentinel)
    redis.is_frozen.set()
    with pytest.raises(RedisTimeoutError):
        worker.channel.client.llen("default")
    assert not worker.is_readable(0)


@pytest.mark.usefixtures("module")
def test_other_sentinel_client_is_not_watched(servers):
    sentinel, _ = servers
    client = Sentinel([("127.0.0.1", sentinel.port)]).master_for("airflow")
    client.ping()
    assert stale_connections._watched == {}


def test_unresponsive_sentinel_reports_no_primary(module, servers, monkeypatch):
    sentinel, _ = servers
    monkeypatch.setattr(stale_connections, "ANSWER_SECONDS", 0.1)
    manager = Sentinel([("127.0.0.1", sentinel.port)], sentinel_kwargs={})
    assert module.redis_primary(manager, "airflow") == f"localhost:{sentinel.primary[1]}"
    sentinel.is_frozen.set()
    assert module.redis_primary(manager, "airflow") is None


def test_kombu_creates_connections_with_the_same_arguments(module, servers):
    """Kombu reads the accepted arguments from the connection class."""
    sentinel, _ = servers
    patched = Worker(sentinel).channel._connparams()
    with pytest.MonkeyPatch.context() as monkeypatch:
        upstream_class = SentinelChannel.connection_class.__bases__[1]
        monkeypatch.setattr(SentinelChannel, "connection_class", upstream_class)
        assert Worker(sentinel).channel._connparams() == patched | {"connection_class": upstream_class}
