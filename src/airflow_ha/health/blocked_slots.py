"""The number of a worker's slots that a stopped task (SIGSTOP) holds; `heartbeat_lease.py` suspends tasks this way.

It comes from /proc, so the probe and the worker's telemetry agree, and a stop by another program counts too.
"""

from __future__ import annotations

import os

STOPPED = b"T"


def blocked_slots(proc: str = "/proc") -> int:
    """Return how many running processes have a stopped child; each is the supervisor of one task.

    Args:
        proc: The proc file system of this container.
    """
    parents: dict[bytes, bytes] = {}
    for name in os.listdir(proc):  # noqa: PTH208 (without pathlib, which the probe does not load)
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/stat", "rb") as file:  # noqa: PTH123
                # The program's name, in brackets, may contain spaces and brackets.
                state, parent, *_ = file.read().rpartition(b")")[2].split()
        except (OSError, ValueError):  # the process has exited
            continue
        if state == STOPPED:
            parents[name.encode()] = parent
    return len({parent for parent in parents.values() if parent not in parents})
