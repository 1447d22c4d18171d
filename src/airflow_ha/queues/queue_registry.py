"""The consumed queues and their workers' slots, in the broker's own Redis.

QUEUES has each queue with the time of its last announcement. It has no expiry: a queue whose workers are gone stays in
it with its old time, and an empty set means that no worker has ever announced one. WORKERS has each living worker.
The times are Redis' own, so the hosts' clocks need not agree.
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
"""A queue counts as consumed for so long after an announcement: longer than a restart of all workers takes (45 s)."""
DEFAULT_QUEUE: Final = "default"


@dataclass(frozen=True)
class Consumed:
    """What workers consume.

    Attributes:
        queues: the names.
        slots: how many tasks run at once, of each queue whose workers are not those of the default queue.
    """

    queues: frozenset[str] = frozenset()
    slots: Mapping[str, int] = field(default_factory=dict)

    def __or__(self, other: Consumed) -> Consumed:
        """Both together; where both know the slots of a queue, the other's count."""
        return Consumed(self.queues | other.queues, {**self.slots, **other.slots})


def announce(client: Any, worker: str, slots: int, queues: Iterable[str]) -> None:
    """Record that a worker consumes these queues now.

    Args:
        client: of redis-py.
        worker: its name.
        slots: how many tasks it runs at once.
        queues: their names; at least one.
    """
    names = sorted(queues)
    seconds, _ = client.time()
    client.zadd(QUEUES, dict.fromkeys(names, seconds))
    client.zadd(WORKERS, {json.dumps([worker, slots, names]): seconds})
    client.zremrangebyscore(WORKERS, "-inf", seconds - CONSUMED_SECONDS)


def consumed(client: Any) -> Consumed | None:
    """Return what workers consume; None when no worker has ever announced a queue."""
    seconds, _ = client.time()
    announced = client.zrange(QUEUES, 0, -1, withscores=True)
    if not announced:
        return None
    queues = frozenset(name.decode() for name, at in announced if seconds - at < CONSUMED_SECONDS)
    living = client.zrange(WORKERS, 0, -1, withscores=True)
    # By its name: one that changed its queues a moment ago is there twice.
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
