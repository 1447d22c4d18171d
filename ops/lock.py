"""The lock of a stack: one command at a time changes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.project import Project

WAIT_SECONDS = 600.0
REPORT_SECONDS = 10.0
held: set[int] = set()
"""The open files of the locks that this process holds. A child that gets one keeps the lock while it runs."""


@contextlib.contextmanager
def stack_lock(
    project: Project, command: str, report: Callable[[str], None], wait_seconds: float = WAIT_SECONDS
) -> Iterator[None]:
    """Hold the stack's lock during the block; wait for a command that holds it, and report its name.

    The kernel releases the lock with the process, so a killed `up` leaves no lock behind. Its `docker compose` runs on,
    and would change containers beside the next command, which therefore waits for it.

    Raises:
        StackError: The other command still holds the lock after `wait_seconds`, or this user cannot write the lock.
    """
    path = project.state / ".lock"
    state = project.shown(project.state)
    try:
        project.state.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StackError(
            f"cannot lock the stack: {error.strerror}",
            where=project.shown(path),
            hint=f"run this as the user who ran ./ops/stack up first, or run: sudo chown -R $(id -u) {state}",
        ) from error
    with file:
        started = time.monotonic()
        reported = -REPORT_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another command"
                waited = time.monotonic() - started
                if waited >= wait_seconds:
                    raise StackError(
                        f"cannot lock the stack: {holder} still holds the lock after {waited:.0f} s",
                        where=project.shown(path),
                        hint="wait for that command or stop it, then run this again",
                    ) from None
                if waited - reported >= REPORT_SECONDS:
                    report(f"waiting for {holder} … {waited:.0f} s")
                    reported = waited
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"`ops/stack {command}` (process {os.getpid()}, since {time.strftime('%H:%M:%S')})")
        file.flush()
        held.add(file.fileno())
        try:
            yield
        finally:
            held.remove(file.fileno())
            file.truncate(0)
