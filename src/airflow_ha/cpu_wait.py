"""How long a thread has waited for a CPU: what a starved process may leave out when it counts how long others took."""

from __future__ import annotations

from pathlib import Path

SCHEDSTAT = Path("/proc/thread-self/schedstat")


def cpu_wait() -> float:
    """Return the seconds that this thread has waited for a CPU so far; 0 where the kernel does not count them."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
