"""One command at a time changes a stack."""

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


@contextlib.contextmanager
def stack_lock(
    project: Project, command: str, report: Callable[[str], None], wait_seconds: float = WAIT_SECONDS
) -> Iterator[None]:
    """Holds the stack's lock; while another command has it, waits and says which.

    The kernel frees the lock with its process, so that a killed `up` leaves none behind.

    Raises:
        StackError: the other command has not ended after `wait_seconds`, or this user may not write there.
    """
    path = project.state / ".lock"
    try:
        project.state.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StackError(
            f"this user may not change this stack: {error.strerror}",
            where=project.shown(path),
            hint=f"run this as who ran ./ops/stack up first, or: sudo chown -R $(id -u) {project.shown(project.state)}",
        ) from error
    with file:
        started = time.monotonic()
        said = -REPORT_SECONDS
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
                        f"{holder} is still at work on this stack after {waited:.0f} s",
                        where=project.shown(path),
                        hint="wait for it or end it, then run this again",
                    ) from None
                if waited - said >= REPORT_SECONDS:
                    report(f"waiting for {holder} … {waited:.0f} s")
                    said = waited
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"`ops/stack {command}` (process {os.getpid()}, since {time.strftime('%H:%M:%S')})")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
