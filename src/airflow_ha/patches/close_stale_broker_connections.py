"""A worker closes its connections to a frozen Redis primary as soon as a new primary is elected.

Problem: a worker's event loop waits for its next task without a timeout, whatever `socket_timeout` is set to, and the
kernel of a frozen process keeps acknowledging data. The worker takes no task for the whole freeze, although a new
primary serves.
Patch: a thread checks the Sentinel-managed connections of Celery's broker. If an answer is overdue it queries the
Sentinels for the primary and shuts connections to other nodes; kombu then reconnects. Other clients are not affected.
Applies to: kombu 5.6.2, `kombu.transport.redis`; redis-py 6.4.0, `redis.sentinel`. Workers only: a scheduler's calls
to Redis are limited by `socket_timeout`.
Upstream issue: none found.
Remove when: kombu sets a timeout for the answer to its BRPOP.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.transport.redis import SentinelChannel
from redis.exceptions import RedisError
from redis.sentinel import Sentinel

from airflow_ha.patches import stale_connections

_sentinel: Any = Sentinel  # redis-py's class is untyped
_channel: Any = SentinelChannel


def node_name(address: tuple[str, int]) -> str:
    """Return a node address in the `host:port` form that Sentinels announce."""
    host, port = address
    return f"{host}:{port}"


def redis_primary(manager: Any, service: str) -> str | None:
    """Return the primary according to the first Sentinel that answers; None if none answers.

    Args:
        manager: The Sentinel client of a connection. It is not queried itself, because it belongs to its own thread.
        service: Sentinels' name of the primary's group.
    """
    known = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), stale_connections.ANSWER_SECONDS)
    sentinels = _sentinel(
        [(kwargs["host"], kwargs["port"]) for kwargs in known], sentinel_kwargs=manager.sentinel_kwargs | limits
    )
    try:
        return node_name(sentinels.discover_master(service))
    except (OSError, RedisError):
        return None


class WatchedConnection:
    """Mixin for a Sentinel-managed connection that registers it to be watched."""

    connection_pool: Any
    _sock: Any

    def connect_to(self, address: tuple[str, int]) -> None:
        """Connect with the upstream method, then watch the connection."""
        super().connect_to(address)  # type: ignore[misc]  # redis.sentinel.SentinelManagedConnection's
        pool = self.connection_pool
        if pool.is_master:
            find = partial(redis_primary, pool.sentinel_manager, pool.service_name)
            stale_connections.watch(self._sock.fileno(), node_name(address), find)
            stale_connections.start_permanent_watcher()


def apply() -> None:
    """Watch the broker connections, with and without TLS."""
    for kind in ("connection_class", "connection_class_ssl"):
        upstream_class = getattr(_channel, kind)
        setattr(_channel, kind, type(upstream_class.__name__, (WatchedConnection, upstream_class), {}))
