"""A Redis failover costs a connection, not the worker or the task that is being queued."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace

import kombu
import pytest
from kombu.message import Message
from kombu.transport.redis import Channel, Transport, get_redis_error_classes
from redis import Redis
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests.unit.patches.loading import applied

ANSWERS = [
    "NOREPLICAS Not enough good replicas to write.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
]


@pytest.fixture(autouse=True)
def redis_failover_errors():
    with applied("redis_failover_errors") as module:
        yield module


@pytest.mark.parametrize("answer", ANSWERS)
def test_answer_of_a_former_primary_is_a_lost_connection(redis_failover_errors, answer):
    error = BaseParser.parse_error(answer)
    assert isinstance(error, redis_failover_errors.NotPrimaryError)
    assert isinstance(error, get_redis_error_classes().connection_errors)


@pytest.mark.parametrize("answer", ANSWERS)
def test_upstream_treats_it_as_a_permanent_error(answer, monkeypatch):
    """If this fails, upstream is fixed: delete that part of the patch."""
    for code in ("NOREPLICAS", "UNBLOCKED"):
        monkeypatch.delitem(BaseParser.EXCEPTION_CLASSES, code)
    error = BaseParser.parse_error(answer)
    assert type(error) is ResponseError
    assert not isinstance(error, get_redis_error_classes().connection_errors)


PUBLISHING = """
import kombu
from redis.exceptions import ConnectionError as Lost
{load}
connection = kombu.Connection("redis://127.0.0.1:1")
connection._ensure_connection = lambda *_, **__: None
connection.collapse = lambda: None
kombu.Connection.default_channel = None
tries = 0
class Publisher:
    def revive(self, channel): pass
def publish():
    global tries
    tries += 1
    if tries < 5:
        raise Lost("The previous master is now a slave")
try:
    connection.ensure(Publisher(), publish, max_retries=None)()
except kombu.exceptions.OperationalError:
    pass
print(tries)
"""


@pytest.mark.parametrize(
    ("load", "tries"),
    [("from airflow_ha.patches import redis_failover_errors as patch; patch.apply()", 5), ("", 2)],
    ids=["patched", "upstream: if this fails, delete that part of the patch"],
)
def test_failed_publish_is_retried_until_it_succeeds(load, tries):
    script = PUBLISHING.format(load=load)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="src")
    assert done.stdout.split() == [str(tries)]


def closed_channel(connection: SimpleNamespace | None) -> Channel:
    """Return a channel without a connection, or with a closed one."""
    channel = object.__new__(Channel)
    channel.connection = connection
    return channel


@pytest.mark.parametrize("connection", [None, SimpleNamespace(client=None)], ids=["channel", "connection"])
def test_closed_channel_is_a_lost_connection(redis_failover_errors, connection):
    channel = closed_channel(connection)
    with pytest.raises(RedisConnectionError, match="channel was closed"):
        channel._connparams()
    with pytest.raises(AttributeError):  # if this fails, upstream is fixed: delete that part of the patch
        redis_failover_errors._connparams(channel)


def test_worker_survives_a_failed_acknowledgement(caplog):
    channel = closed_channel(SimpleNamespace(client=None))
    channel._closed, channel._pool, channel._qos, channel.Client = True, None, None, Redis
    message = Message(channel=channel, delivery_tag="taken before")
    message.ack_log_error(logging.getLogger("celery.worker"), Transport.connection_errors)
    assert "channel was closed" in caplog.text


def test_sentinel_transport_is_patched_too():
    transport = kombu.Connection("sentinel://127.0.0.1:1").get_transport_cls()
    assert transport.recoverable_connection_errors == transport.connection_errors
    assert issubclass(transport.Channel, Channel)
