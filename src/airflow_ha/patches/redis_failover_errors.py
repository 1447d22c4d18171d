"""A Redis that is replaced costs a connection: not the worker, and not the task that is just being queued.

Three faults, in redis-py 6.4 and kombu 5.6. Only the third has an issue upstream that was found.

1. A Redis that was the primary and no longer is answers READONLY, which redis-py takes for a lost connection, but just
   as well NOREPLICAS (it has come back alone, and takes no writes) or UNBLOCKED (it became a replica while a worker
   waited for a task). Those two are plain errors: a worker ends with "Unrecoverable error" and takes its running tasks
   with it. Here all of them are lost connections, which kombu and Celery repair.
2. kombu publishes again once after a lost connection, whatever `task_publish_retry_policy` says, unless its transport
   names the errors that can be recovered from; its Redis transport does not. A connection to the old primary that works
   for one more moment is enough to fail the task. Here it names them.
3. A channel that was closed, or whose connection was, fails with "'NoneType' object has no attribute 'client'" or
   "…'hostname'" (https://github.com/celery/kombu/issues/582), which nothing repairs. A publisher fails its task. A
   worker whose Redis comes back loading its file, and which then acknowledges a task of an earlier connection, ends
   with "Unrecoverable error", and takes nothing more until what runs in it has ended. Here it is a lost connection.

Each can go when its test in `test_redis_failover_errors.py` fails.
Loaded by schedulers, workers and Flower with Celery's settings (airflow_ha/celery_config.py).
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
