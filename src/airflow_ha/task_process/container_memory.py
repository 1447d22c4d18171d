"""Memory of a worker's container, and which process the kernel kills when it runs out."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from airflow_ha.task_process.control_group import CGROUP, number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OOM_KILLS: Final = ("memory.events", "memory/memory.oom_control")
"""The files with the kernel's count of OOM kills: control groups v2, v1."""
LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
OOM_SCORE: Final = 900
"""The kernel adds it to a task's share of the memory, in thousandths. So it kills tasks before any other process, the
largest first."""

_own_score: tuple[int, int, bytes] | None = None
"""This process's id, the descriptor of its open oom_score_adj, and the initial value."""


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Return the number of OOM kills in this container; 0 if the kernel does not count them."""
    for name in OOM_KILLS:
        with suppress(OSError):
            if match := re.search(r"^oom_kill (\d+)$", (cgroup / name).read_text(), re.MULTILINE):
                return int(match[1])
    return 0


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Return the memory limit of this container in bytes; None if it has none."""
    return number(LIMITS, cgroup)


def open_own_score() -> None:
    """Keep this process's oom_score_adj open: once a supervisor is not dumpable, only root can open it."""
    global _own_score
    with suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        _own_score = os.getpid(), score, os.pread(score, 16, 0).strip()


def close_inherited_score() -> None:
    """Close the parent's oom_score_adj in a forked child."""
    global _own_score
    if _own_score:
        os.close(_own_score[1])
        _own_score = None


@contextmanager
def forks_go_first() -> Iterator[None]:
    """Make the kernel kill processes that are forked in this block, and their descendants, first when out of memory.

    A child inherits the score, so this process's own score is raised during the block.
    """
    if _own_score is None or _own_score[0] != os.getpid():
        yield
        return
    _, score, usual = _own_score
    os.pwrite(score, str(OOM_SCORE).encode(), 0)
    try:
        yield
    finally:
        if _own_score:  # false in a child that leaves the block
            os.pwrite(score, usual, 0)
