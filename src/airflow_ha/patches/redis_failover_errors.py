"""A Redis failover costs a connection, not the worker or the task that is being queued.

Problem: three errors are not treated as lost connections, so nothing retries them.
1. NOREPLICAS (a former primary returned alone) and UNBLOCKED (it was demoted while a worker waited) are plain errors in
   redis-py, unlike READONLY. The worker exits with its running tasks.
2. kombu retries a publish only once after a lost connection, despite `task_publish_retry_policy`, unless the transport
   lists the recoverable errors. Its Redis transport does not.
3. A closed channel, or one whose connection was closed, fails with "'NoneType' object has no attribute …". A publisher
   fails its task; a worker that acknowledges a task of an earlier connection exits.
Patch: treat all of them as lost connections, which kombu and Celery recover from.
Applies to: redis-py 6.4.0, `redis._parsers.base`; kombu 5.6.2, `kombu.transport.redis`.
Upstream issue: https://github.com/celery/kombu/issues/582 for the third; none found for the others.
Remove when: its tests in `test_redis_failover_errors.py` that name upstream fail.
"""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel, Transport
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError


class NotPrimaryError(RedisConnectionError):
    """This Redis accepts no writes at present; another node may be the primary."""


_connparams = Channel._connparams


def connparams(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the upstream method; raise a recoverable error if the channel or its connection is closed."""
    if self.connection is None or self.connection.client is None:
        raise RedisConnectionError("this channel was closed with its connection")
    return _connparams(self, *args, **kwargs)


def apply() -> None:
    """Treat these errors as lost connections."""
    not_primary = dict.fromkeys(("NOREPLICAS", "UNBLOCKED"), NotPrimaryError)
    BaseParser.EXCEPTION_CLASSES = {**BaseParser.EXCEPTION_CLASSES, **not_primary}
    Transport.recoverable_connection_errors = Transport.connection_errors
    Transport.recoverable_channel_errors = ()
    Channel._connparams = connparams
