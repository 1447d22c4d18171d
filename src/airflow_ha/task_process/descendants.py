"""The processes that a task leaves behind, including those in their own sessions."""

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
EXIT_SECONDS: Final = 0.2
"""Time for a process that exits after its parent, such as multiprocessing's resource tracker."""
GRACE_SECONDS: Final = 1.0
"""Time from the start until a process that received SIGTERM gets SIGKILL."""
GIVE_UP_SECONDS: Final = 10.0
"""Limit for processes that start others faster than they are killed, or that the kernel cannot kill (stuck in I/O)."""
POLL_SECONDS: Final = 0.01

_libc = ctypes.CDLL(None)


def adopt_orphans() -> None:
    """Make this process, instead of the container's init, the parent of descendants whose parent has exited."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(parent: int) -> None:
    """Make this process exit when the thread that forked it exits.

    Args:
        parent: The id of the process that forked this one.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def children(parent: int | str = "self") -> set[int]:
    """Return the ids of a process's children, zombies included."""
    pids: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208 (saves a few microseconds of each task)
            with suppress(OSError):
                pids.update(map(int, Path(f"/proc/{parent}/task/{thread}/children").read_bytes().split()))
    return pids


def descendants() -> set[int]:
    """Return the ids of this process's children, their children, and so on."""
    pids: set[int] = set()
    new = children()
    while new:
        pids |= new
        new = set().union(*map(children, new)) - pids
    return pids


def reap(pids: Collection[int]) -> set[int]:
    """Reap the children that have exited; return the live ones."""
    alive = set()
    for pid in pids:
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                alive.add(pid)
    return alive


def end_all(kept: Collection[int] = ()) -> list[str]:
    """Terminate this process's descendants: SIGTERM, then SIGKILL. Orphans of a terminated process become children.

    Args:
        kept: The ids of children that keep running.

    Returns:
        The terminated processes, each as `name (pid)`.
    """
    ended: dict[int, str] = {}
    started = time.monotonic()
    while alive := reap(children().difference(kept)):
        waited = time.monotonic() - started
        if waited > GIVE_UP_SECONDS:
            break
        for pid in alive if waited > EXIT_SECONDS else ():
            if pid not in ended:
                ended[pid] = f"{name_of(pid)} ({pid})"
                send(pid, signal.SIGTERM)
        if waited > GRACE_SECONDS:
            kill_all(kept)
        time.sleep(POLL_SECONDS)
    return list(ended.values())


def kill_all(kept: Collection[int] = ()) -> None:
    """Kill this process's descendants.

    They are stopped first: a stopped process cannot fork, so none is left that starts others faster than they are
    killed.

    Args:
        kept: The ids of children that keep running.
    """
    stopped: set[int] = set()
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while (new := descendants().difference(kept, stopped)) and time.monotonic() < deadline:
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        send(pid, signal.SIGKILL)


def name_of(pid: int) -> str:
    """Return the name of a process's program; empty if it has exited."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process; nothing happens if it has exited."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
