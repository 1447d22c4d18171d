"""Why a task's process exited before its task completed, for the task's log and for metrics."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from airflow_ha.sizes import shown

Reason = Literal["oom", "signal", "exit", "scratch", "processes"]


@dataclass(frozen=True)
class Breach:
    """The limit for which the supervisor terminated a task.

    Attributes:
        reason: The metric's label.
        text: The limit and the usage, as a sentence without its full stop.
    """

    reason: Reason
    text: str


@dataclass(frozen=True)
class Ending:
    """The exit of a task's process.

    Attributes:
        code: The exit code, or the negative number of a signal.
        peak: The peak memory in bytes; None if unknown.
        limit: The worker's memory limit in bytes; None if it has none.
        memory_ran_out: Whether the kernel has just killed a process of this worker for memory.
        ended_for: The limit for which the supervisor terminated it; None if it did not.
    """

    code: int
    peak: int | None = None
    limit: int | None = None
    memory_ran_out: bool = False
    ended_for: Breach | None = None

    @property
    def reason(self) -> Reason:
        """Return the metric's label."""
        if self.ended_for:
            return self.ended_for.reason
        if self.code == -signal.SIGKILL and self.memory_ran_out:
            return "oom"
        return "signal" if self.code < 0 else "exit"

    @property
    def text(self) -> str:
        """Return the message for the task's log."""
        peak = f"; its peak memory was {shown(self.peak)}" if self.peak else ""
        peak += f" of the worker's {shown(self.limit)}" if self.peak and self.limit else ""
        other_kill = "; the kernel had just killed another process of this worker (OOM)" if self.memory_ran_out else ""
        if self.ended_for:
            return f"{self.ended_for.text}{peak if self.reason == 'oom' else ''}. The worker terminated the task"
        match self.reason:
            case "oom":
                return (
                    "The kernel killed this task (SIGKILL): the worker ran out of memory (OOM), and this task used "
                    f"the most{peak}"
                )
            case "signal":
                sender = "; another process sent it, and not for memory" if self.code == -signal.SIGKILL else ""
                return f"{name_of(self.code)} terminated this task's process{sender}{peak}{other_kill}"
            case _:
                return (
                    "This task's process exited before the task completed, with "
                    f"exit code {self.code}{peak}{other_kill}"
                )


def name_of(code: int) -> str:
    """Return the name of a signal, for example `SIGSEGV (Segmentation fault)`.

    Args:
        code: The exit code of a process, the negative number of a signal.
    """
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
    description = signal.strsignal(-code)
    return f"{name} ({description})" if description else name
