"""A connection to a Redis that froze is closed as soon as another node is the primary.

Problem: a worker's event loop waits for its next task without a limit, whatever `socket_timeout` says, and the kernel
of a frozen process goes on acknowledging what it is sent. The worker takes no task for as long as the freeze lasts,
though a new primary serves.
Patch: a thread checks the connections that Celery's broker has by the Sentinels. When an answer is overdue it asks the
Sentinels for the primary, and shuts those to another node; kombu then connects anew. Other clients are left alone.
Applies to: kombu 5.6.2, `kombu.transport.redis`; redis-py 6.4.0, `redis.sentinel`. Workers: what a
scheduler asks of Redis ends by `socket_timeout`.
Upstream issue: none found.
Remove when: kombu limits how long it waits for the answer of its BRPOP.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.transport.redis import SentinelChannel
from redis.exceptions import RedisError
from redis.sentinel import Sentinel

from airflow_ha.patches import stale_connections

_sentinel: Any = Sentinel  # redis-py's has no types
_channel: Any = SentinelChannel


def name(address: tuple[str, int]) -> str:
    """Return a node's name, as Sentinels announce it."""
    host, port = address
    return f"{host}:{port}"


def redis_primary(manager: Any, service: str) -> str | None:
    """Return the node that the first Sentinel to answer calls the primary; None when none answers.

    Args:
        manager: The Sentinels of a connection. It is not asked: what it knows is its own thread's.
        service: What they call the primary's group.
    """
    known = [one.connection_pool.connection_kwargs for one in manager.sentinels]
    limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), stale_connections.ANSWER_SECONDS)
    sentinels = _sentinel(
        [(one["host"], one["port"]) for one in known], sentinel_kwargs=manager.sentinel_kwargs | limits
    )
    try:
        return name(sentinels.discover_master(service))
    except (OSError, RedisError):
        return None


class WatchedConnection:
    """What is added to a connection by the Sentinels."""

    connection_pool: Any
    _sock: Any

    def connect_to(self, address: tuple[str, int]) -> None:
        """Connect as upstream's, and have the connection watched."""
        super().connect_to(address)  # type: ignore[misc]  # redis.sentinel.SentinelManagedConnection's
        pool = self.connection_pool
        if pool.is_master:
            find = partial(redis_primary, pool.sentinel_manager, pool.service_name)
            stale_connections.watch(self._sock.fileno(), name(address), find)
            stale_connections.watch_always()


def apply() -> None:
    """Watch the broker's connections, with TLS or without."""
    for kind in ("connection_class", "connection_class_ssl"):
        upstreams = getattr(_channel, kind)
        setattr(_channel, kind, type(upstreams.__name__, (WatchedConnection, upstreams), {}))
