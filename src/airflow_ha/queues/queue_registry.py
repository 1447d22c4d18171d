"""The consumed queues and their workers' slots, in the broker's Redis.

The sorted set QUEUES holds each queue with the time of its last announcement. It does not expire: a queue without
workers stays with its old time, and an empty set means that no worker has ever announced a queue. The sorted set
WORKERS holds the live workers. All times come from Redis, so the hosts' clocks need not agree.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

QUEUES: Final = "airflow-ha.consumed-queues"
WORKERS: Final = "airflow-ha.workers"
ANNOUNCE_SECONDS: Final = 5.0
CONSUMED_SECONDS: Final = 60.0
"""How long a queue counts as consumed after an announcement: longer than a restart of all workers (45 s)."""
DEFAULT_QUEUE: Final = "default"


@dataclass(frozen=True)
class Consumed:
    """The consumed queues.

    Attributes:
        queues: their names.
        slots: the slots by queue, for queues that no worker of the default queue consumes.
    """

    queues: frozenset[str] = frozenset()
    slots: Mapping[str, int] = field(default_factory=dict)

    def __or__(self, other: Consumed) -> Consumed:
        """Return the union; if both have the slots of a queue, those of `other` apply."""
        return Consumed(self.queues | other.queues, {**self.slots, **other.slots})


def announce(client: Any, worker: str, slots: int, queues: Iterable[str]) -> None:
    """Record that a worker consumes these queues now.

    Args:
        client: a client of redis-py.
        worker: the worker's name.
        slots: how many tasks the worker runs at a time.
        queues: names; at least one.
    """
    names = sorted(queues)
    seconds, _ = client.time()
    client.zadd(QUEUES, dict.fromkeys(names, seconds))
    client.zadd(WORKERS, {json.dumps([worker, slots, names]): seconds})
    client.zremrangebyscore(WORKERS, "-inf", seconds - CONSUMED_SECONDS)


def consumed(client: Any) -> Consumed | None:
    """Return the consumed queues; None if no worker has ever announced a queue."""
    seconds, _ = client.time()
    announced = client.zrange(QUEUES, 0, -1, withscores=True)
    if not announced:
        return None
    queues = frozenset(name.decode() for name, at in announced if seconds - at < CONSUMED_SECONDS)
    living = client.zrange(WORKERS, 0, -1, withscores=True)
    # By worker name: a worker that has just changed its queues has two entries.
    newest = {
        worker: (slots, names)
        for raw, at in sorted(living, key=lambda entry: float(entry[1]))
        if seconds - at < CONSUMED_SECONDS
        for worker, slots, names in [json.loads(raw)]
    }
    shared = {name for _, names in newest.values() if DEFAULT_QUEUE in names for name in names}
    slots_of: Counter[str] = Counter()
    for slots, names in newest.values():
        slots_of.update(dict.fromkeys(set(names) - shared, slots))
    return Consumed(queues, dict(slots_of))
