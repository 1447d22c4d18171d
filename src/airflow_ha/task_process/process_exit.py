"""Why a child process exited: its exit code or signal, and whether the container's memory limit caused it."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from airflow_ha.sizes import MIB
from airflow_ha.task_process import container_memory
from airflow_ha.task_process.ending import name_of


def prefer_as_oom_target() -> None:
    """Make the kernel kill the calling process before its parent when the container runs out of memory."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def exit_reason(code: int | None, oom_kills_before: int) -> str:
    """Return why a process exited, as the predicate of a sentence.

    Args:
        code: its exit code, or a negative signal number as from psutil; None if unknown.
        oom_kills_before: `container_memory.oom_kills()` at its start.
    """
    if code is None:
        return "ended without an exit code"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code != signal.SIGKILL:
        return f"was terminated by {name_of(code)}"
    limit = container_memory.memory_limit()
    limit_text = f" of {limit / MIB:.0f} MiB" if limit else ""
    if container_memory.oom_kills() > oom_kills_before:
        return f"was killed by the kernel (SIGKILL): the container reached its memory limit{limit_text}"
    return f"was killed by SIGKILL, not for memory: the kernel counted no OOM kill in the container{limit_text}"
