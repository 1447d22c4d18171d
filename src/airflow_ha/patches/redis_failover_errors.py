"""A Redis that is replaced costs a connection: not the worker, and not the task that is just being queued.

Problem: three errors that nothing repairs.
1. NOREPLICAS (a former primary came back alone) and UNBLOCKED (it became a replica while a worker waited) are plain
   errors to redis-py, where READONLY is a lost connection: a worker ends, and takes its running tasks with it.
2. kombu publishes again once after a lost connection, whatever `task_publish_retry_policy` says, unless its transport
   names the errors that can be recovered from; its Redis transport does not.
3. A channel that was closed, or whose connection was, fails with "'NoneType' object has no attribute …": a publisher
   fails its task; a worker that acknowledges a task of an earlier connection ends.
Patch: all of them are lost connections, which kombu and Celery repair.
Applies to: redis-py 6.4.0, `redis._parsers.base`; kombu 5.6.2, `kombu.transport.redis`.
Upstream issue: https://github.com/celery/kombu/issues/582 for the third; none found for the others.
Remove when: its tests in `test_redis_failover_errors.py` that name upstream fail.
"""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel, Transport
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError


class PrimaryIsElsewhereError(RedisConnectionError):
    """This Redis takes no writes at present: another may be the primary."""


_connparams = Channel._connparams


def connparams(self: Any, *args: Any, **kwargs: Any) -> Any:
    """As upstream's, with an error that is repaired when the channel or its connection is closed."""
    if self.connection is None or self.connection.client is None:
        raise RedisConnectionError("this channel was closed with its connection")
    return _connparams(self, *args, **kwargs)


def apply() -> None:
    """Treat all of them as lost connections."""
    elsewhere = dict.fromkeys(("NOREPLICAS", "UNBLOCKED"), PrimaryIsElsewhereError)
    BaseParser.EXCEPTION_CLASSES = {**BaseParser.EXCEPTION_CLASSES, **elsewhere}
    Transport.recoverable_connection_errors = Transport.connection_errors
    Transport.recoverable_channel_errors = ()
    Channel._connparams = connparams
