"""A task that is told to end, ends.

Problem: on SIGTERM a task's process calls the operator's `on_kill` and then goes on where it was. When Airflow says
that a task is no longer this try's, since it was started elsewhere or cleared, the first try runs for 5 s more beside
the second, until the supervisor sends SIGKILL.
Patch: after `on_kill` the process ends by the signal. Its callbacks are not called: what becomes of the task is decided
by the supervisor or the scheduler.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.task_runner`.
Upstream issue: https://github.com/apache/airflow/issues/73006
Remove when: the test in `test_end_task_after_sigterm.py` that names upstream fails.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time import task_runner

if TYPE_CHECKING:
    from types import FrameType

_prepare: Any = task_runner._prepare


def prepare(*args: Any, **kwargs: Any) -> Any:
    """As upstream's, which is called right after its handler is in place."""
    on_kill = signal.getsignal(signal.SIGTERM)

    def end(signum: int, frame: FrameType | None) -> None:
        try:
            if callable(on_kill):
                on_kill(signum, frame)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    return _prepare(*args, **kwargs)


def apply() -> None:
    """End a task's process after on_kill."""
    task_runner._prepare = prepare
