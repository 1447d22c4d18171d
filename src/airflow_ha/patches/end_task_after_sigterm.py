"""A task that receives SIGTERM ends at once.

Problem: on SIGTERM a task process calls the operator's `on_kill` and then continues. If Airflow reports that another
try is current (started elsewhere, or cleared), the old try runs 5 s beside the new one, until the supervisor sends
SIGKILL.
Patch: after `on_kill` the signal ends the process. Its callbacks do not run: the supervisor or the scheduler decides
the task's state.
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
    """Wrap upstream's SIGTERM handler, which is set by now, then call the upstream function."""
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
    """End a task process after on_kill."""
    task_runner._prepare = prepare
