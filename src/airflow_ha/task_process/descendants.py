"""The processes that a task leaves behind, also in sessions of their own."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
"""From <linux/prctl.h>."""
OWN_END_SECONDS: Final = 0.2
"""For a process that ends by itself when its parent has, as multiprocessing's resource tracker does."""
GRACE_SECONDS: Final = 1.0
"""For a process that was told to end (SIGTERM), before it is killed."""
GIVE_UP_SECONDS: Final = 10.0
"""For processes that start others faster than they can be killed, or that the kernel cannot end (stuck in I/O)."""
POLL_SECONDS: Final = 0.01

_libc = ctypes.CDLL(None)


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose parent has ended, in place of the container's init."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(parent: int) -> None:
    """Make this process end when the thread that forked it does.

    Args:
        parent: The id of the process that forked this one.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def children(of: int | str = "self") -> set[int]:
    """Return the ids of a process's children, those that ended and were not waited for included."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{of}/task"):  # noqa: PTH208 (a few microseconds, of each task)
            with suppress(OSError):
                found.update(map(int, Path(f"/proc/{of}/task/{thread}/children").read_bytes().split()))
    return found


def descendants() -> set[int]:
    """Return the ids of this process's children, their children, and so on."""
    found: set[int] = set()
    new = children()
    while new:
        found |= new
        new = set().union(*map(children, new)) - found
    return found


def reap(pids: Collection[int]) -> set[int]:
    """Wait for those children that have ended; return the others."""
    alive = set()
    for pid in pids:
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                alive.add(pid)
    return alive


def end_all(kept: Collection[int] = ()) -> list[str]:
    """End this process's descendants: SIGTERM, then SIGKILL; the children of one that ended become our own.

    Args:
        kept: The ids of those children that stay.

    Returns:
        The ended ones, each as `name (pid)`.
    """
    ended: dict[int, str] = {}
    begun = time.monotonic()
    while left := reap(children().difference(kept)):
        waited = time.monotonic() - begun
        if waited > GIVE_UP_SECONDS:
            break
        for pid in left if waited > OWN_END_SECONDS else ():
            if pid not in ended:
                ended[pid] = f"{name_of(pid)} ({pid})"
                send(pid, signal.SIGTERM)
            elif waited > GRACE_SECONDS:
                send(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return list(ended.values())


def name_of(pid: int) -> str:
    """Return the name of a process's program; empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
