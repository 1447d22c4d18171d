"""Why a child process ended: its exit code or signal in words, and whether the container's memory limit ended it."""

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
    """Return how many processes of this container the kernel has killed for memory, 0 where it does not count them."""
    return container_memory.oom_kills(CGROUP)


def memory_limit() -> int | None:
    """Return the container's memory limit in bytes, None where there is none."""
    return container_memory.memory_limit(CGROUP)


def prefer_as_oom_target() -> None:
    """Let the kernel kill the calling process first when the container runs out of memory, rather than its parent."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def exit_reason(code: int | None, oom_kills_before: int) -> str:
    """Return why a process ended, as the predicate of a sentence.

    Args:
        code: its exit code, a negative signal number as psutil returns it; None when it is not known.
        oom_kills_before: `oom_kills()` when it was started.
    """
    if code is None:
        return "ended without an exit code"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code != signal.SIGKILL:
        return f"was ended by {name_of(code)}"
    limit = memory_limit()
    of = f" of {limit / MIB:.0f} MiB" if limit else ""
    if oom_kills() > oom_kills_before:
        return f"was killed by the kernel (SIGKILL): the container reached its memory limit{of}"
    return f"was killed by SIGKILL; not for memory: the kernel counted no kill at the container's limit{of}"
