"""The consumed queues, in the broker's own Redis: one sorted set, each queue with the time of its last announcement.

The times are Redis' own, so the hosts' clocks need not agree. The set has no expiry: a queue whose workers are gone
stays in it with its old time, and an empty set means that no worker has ever announced one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY: Final = "airflow-ha.consumed-queues"
ANNOUNCE_SECONDS: Final = 5.0
CONSUMED_SECONDS: Final = 60.0
"""A queue counts as consumed for so long after an announcement: longer than a restart of all workers takes (45 s)."""


def announce(client: Any, queues: Iterable[str]) -> None:
    """Record that a worker consumes these queues now.

    Args:
        client: of redis-py.
        queues: their names; at least one.
    """
    seconds, _ = client.time()
    client.zadd(KEY, dict.fromkeys(queues, seconds))


def consumed(client: Any) -> frozenset[str] | None:
    """Return the queues that a worker consumes; None when no worker has ever announced one."""
    seconds, _ = client.time()
    announced = client.zrange(KEY, 0, -1, withscores=True)
    if not announced:
        return None
    return frozenset(name.decode() for name, at in announced if seconds - at < CONSUMED_SECONDS)
