"""How many of a worker's slots are taken by a task that is stopped (SIGSTOP), as `heartbeat_lease.py` suspends them.

Read from /proc, so that the probe and the worker's telemetry agree, and a stop by anybody else counts too.
"""

from __future__ import annotations

import os

STOPPED = b"T"


def blocked_slots(proc: str = "/proc") -> int:
    """Return how many processes that run have a child that is stopped: each is the supervisor of one task.

    Args:
        proc: Where the kernel shows the processes of this container.
    """
    parents: dict[bytes, bytes] = {}
    for name in os.listdir(proc):  # noqa: PTH208 (without pathlib, which the probe does not load)
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/stat", "rb") as file:  # noqa: PTH123
                # The program's name, in brackets, may hold anything.
                state, parent, *_ = file.read().rpartition(b")")[2].split()
        except (OSError, ValueError):  # it has ended
            continue
        if state == STOPPED:
            parents[name.encode()] = parent
    return len({parent for parent in parents.values() if parent not in parents})
