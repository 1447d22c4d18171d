"""The time that a thread has waited for a CPU. A starved process subtracts it from a measured delay."""

from __future__ import annotations

from pathlib import Path

SCHEDSTAT = Path("/proc/thread-self/schedstat")


def cpu_wait() -> float:
    """Return the total seconds that this thread has waited for a CPU; 0 if the kernel does not count them."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
