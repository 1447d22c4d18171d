"""Processes and threads of a worker's container: they share one limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from airflow_ha.task_process.control_group import CGROUP, number

if TYPE_CHECKING:
    from pathlib import Path

LIMITS: Final = ("pids.max", "pids/pids.max")
USED: Final = ("pids.current", "pids/pids.current")
"""The kernel's limit and count: control groups v2, v1."""
ROOM: Final = 16
"""What a task needs to start: its process, and threads of its supervisor."""
WAIT_SECONDS: Final = 20.0
"""A task over its limit is ended earlier, and a queued task's message is sent again after 30 s."""
POLL_SECONDS: Final = 0.2


def limit(cgroup: Path = CGROUP) -> int | None:
    """Return the most processes and threads that this container may have; None if it has no limit."""
    return number(LIMITS, cgroup)


def wait_for_room(cgroup: Path = CGROUP) -> bool:
    """Wait until the container may start a task's processes; return whether it may."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (most := limit(cgroup)) and (number(USED, cgroup) or 0) > most - ROOM:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
