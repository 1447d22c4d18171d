"""The brake of tasks on a disk that is nearly full: their files may not grow, so that Postgres can still write.

It is the limit of a process's file size (RLIMIT_FSIZE), which forks inherit. It affects no pipe and no socket.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL: Final = MIB
"""A file may still grow to this size: locks, semaphores and states of libraries."""


def apply(pids: Iterable[int]) -> None:
    """Let processes write small files only."""
    _set_soft(pids, resource.RLIM_INFINITY, SMALL)


def release(pids: Iterable[int]) -> None:
    """Let processes write files of any size again, if they were braked."""
    _set_soft(pids, SMALL, resource.RLIM_INFINITY)


def _set_soft(pids: Iterable[int], old: int, new: int) -> None:
    for pid in pids:
        with suppress(OSError, ValueError):  # it has exited, or has a lower hard limit
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            if soft == old:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (new, hard))
