"""Why a task's process ended before its task had: what its log says."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from airflow_ha.task_process.size import shown

Reason = Literal["oom", "signal", "exit", "scratch"]


@dataclass(frozen=True)
class Ending:
    """How a task's process ended.

    Attributes:
        code: Its exit code, or the negative number of a signal.
        peak: The most memory that it had, in bytes, where that is known.
        limit: The worker's memory, in bytes, where it has a limit.
        memory_ran_out: Whether the kernel has just killed a process of this worker for memory.
        ended_for: Why its supervisor ended it, where it did.
    """

    code: int
    peak: int | None = None
    limit: int | None = None
    memory_ran_out: bool = False
    ended_for: str | None = None

    @property
    def reason(self) -> Reason:
        """Return what is counted."""
        if self.ended_for:
            return "scratch"
        if self.code == -signal.SIGKILL and self.memory_ran_out:
            return "oom"
        return "signal" if self.code < 0 else "exit"

    @property
    def text(self) -> str:
        """Return what is written in the task's log."""
        peak = f"; its peak memory was {shown(self.peak)}" if self.peak else ""
        of_limit = f", of the worker's {shown(self.limit)}" if self.peak and self.limit else ""
        beside = "; the kernel had just killed another process of this worker for memory" if self.memory_ran_out else ""
        match self.reason:
            case "scratch":
                return f"{self.ended_for}. The task was ended"
            case "oom":
                return (
                    "The kernel killed this task (SIGKILL): the worker had run out of memory (OOM), and this task used "
                    f"the most{peak}{of_limit}"
                )
            case "signal":
                by = " that another process sent; it was not for memory" if self.code == -signal.SIGKILL else ""
                return f"This task's process was ended by {name_of(self.code)}{by}{peak}{of_limit}{beside}"
            case _:
                return (
                    f"This task's process ended with exit code {self.code} before its task had{peak}{of_limit}{beside}"
                )


def name_of(code: int) -> str:
    """Return the name of the signal that ended a process, for example `SIGSEGV (Segmentation fault)`.

    Args:
        code: The process's exit code, the negative number of a signal.
    """
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
    description = signal.strsignal(-code)
    return f"{name} ({description})" if description else name
