"""The memory of a worker's container, and whom the kernel takes when it runs out."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUP: Final = Path("/sys/fs/cgroup")
"""A container sees its own control group here."""
OOM_KILLS: Final = ("memory.events", "memory/memory.oom_control")
"""Where the kernel counts the processes that it killed for memory: control groups v2, v1."""
LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
OOM_SCORE: Final = 900
"""Added to a task's share of the memory, in thousandths: any task goes before any other process, the biggest first."""

_own_score: tuple[int, int, bytes] | None = None
"""This process's id, its open oom_score_adj, and what it was."""


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 where it does not say."""
    for name in OOM_KILLS:
        with suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", (cgroup / name).read_text(), re.MULTILINE):
                return int(found[1])
    return 0


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Return the memory limit of this container in bytes, None where there is none."""
    for name in LIMITS:
        with suppress(OSError, ValueError):
            limit = int((cgroup / name).read_text())
            return limit if limit < 1 << 60 else None  # v1 writes a number near 2^63 for "none"
    return None


def open_own_score() -> None:
    """Keep this process's oom_score_adj open: once a process is not dumpable, as supervisors are, root alone may."""
    global _own_score
    with suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        _own_score = os.getpid(), score, os.pread(score, 16, 0).strip()


def close_inherited_score() -> None:
    """In a forked child: forget the parent's oom_score_adj."""
    global _own_score
    if _own_score:
        os.close(_own_score[1])
        _own_score = None


@contextmanager
def forks_go_first() -> Iterator[None]:
    """Make what is forked inside the block the first that the kernel kills for memory, with all that it starts.

    The score of this process is raised for as long as the block lasts, since a child inherits it.
    """
    if _own_score is None or _own_score[0] != os.getpid():
        yield
        return
    _, score, usual = _own_score
    os.pwrite(score, str(OOM_SCORE).encode(), 0)
    try:
        yield
    finally:
        if _own_score:  # not in a child that left the block
            os.pwrite(score, usual, 0)
