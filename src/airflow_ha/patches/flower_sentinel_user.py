"""Flower logs in to the Redis primary with its user name, also through Sentinel.

Problem: Flower passes the user name of its broker's URL to a single Redis, but not to one that Sentinel names. The
log-in as the user `default` is refused, and the page of the queues is empty.
Patch: add the user name.
Applies to: flower 2.1.0, `flower.utils.broker`.
Upstream issue: none found.
Remove when: the test in `test_flower_sentinel_user.py` that names upstream fails.
"""

from __future__ import annotations

from typing import Any

from flower.utils.broker import RedisSentinel

_get_redis_client: Any = RedisSentinel._get_redis_client


def get_redis_client(self: Any, *arguments: Any) -> Any:
    """Return the upstream client, with the user name."""
    client = _get_redis_client(self, *arguments)
    client.connection_pool.connection_kwargs["username"] = self.username
    return client


def apply() -> None:
    """Add the user name to Flower's client."""
    RedisSentinel._get_redis_client = get_redis_client
