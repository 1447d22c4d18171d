"""Why a child process exited: its exit code or signal, and whether the container's memory limit caused it."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from airflow_ha.task_process import container_memory
from airflow_ha.task_process.ending import name_of

CGROUP: Final = container_memory.CGROUP
MIB: Final = 2**20


def oom_kills() -> int:
    """Return the number of OOM kills in this container; 0 if the kernel does not count them."""
    return container_memory.oom_kills(CGROUP)


def memory_limit() -> int | None:
    """Return the container's memory limit in bytes; None if it has none."""
    return container_memory.memory_limit(CGROUP)


def prefer_as_oom_target() -> None:
    """Make the kernel kill the calling process before its parent when the container runs out of memory."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def exit_reason(code: int | None, oom_kills_before: int) -> str:
    """Return why a process exited, as the predicate of a sentence.

    Args:
        code: its exit code, or a negative signal number as from psutil; None if unknown.
        oom_kills_before: `oom_kills()` at its start.
    """
    if code is None:
        return "ended without an exit code"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code != signal.SIGKILL:
        return f"was terminated by {name_of(code)}"
    limit = memory_limit()
    limit_text = f" of {limit / MIB:.0f} MiB" if limit else ""
    if oom_kills() > oom_kills_before:
        return f"was killed by the kernel (SIGKILL): the container reached its memory limit{limit_text}"
    return f"was killed by SIGKILL, not for memory: the kernel counted no OOM kill in the container{limit_text}"
