"""Patch of Airflow: a process that runs DAG code ends at a fatal signal.

Problem: reading a DAG file sets a Python handler for SIGSEGV. The handler returns to the instruction that faulted,
which faults again, for ever: a core and a slot are lost, and no timeout ends it.
Patch: no handler is set while a DAG file is read. `end_at_fatal_signals()` sets the default action for each of FATAL,
after a Python traceback on standard error.
Applies to: Airflow 3.3.2, `airflow.dag_processing.importers.python_importer`.
Upstream issue: https://github.com/apache/airflow/issues/57174
Remove when: the test in `test_dag_import_signals.py` that names upstream fails.
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Any, Final

from airflow.dag_processing.importers import python_importer

from airflow_ha.task_process.ending import name_of

__all__ = ["FATAL", "end_at_fatal_signals", "name_of"]

FATAL: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
"""The signals that the kernel, or abort(), sends to a process that cannot go on."""
STDERR: Final = 2

_importer: Any = python_importer


class SignalsOfImporter:
    """The module `signal` as the importer of DAG files sees it: no handler can be set for a fatal signal."""

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    @staticmethod
    def signal(number: int, handler: Any) -> Any:
        """Set a handler as `signal.signal` does, unless the signal is fatal: then only return the present one."""
        return signal.getsignal(number) if number in FATAL else signal.signal(number, handler)


def end_at_fatal_signals() -> None:
    """Make this process end by each of FATAL, with the tracebacks of its threads on standard error.

    To be called in the main thread of a process that is about to run DAG code. Its forks inherit it.
    """
    for number in FATAL:
        signal.signal(number, signal.SIG_DFL)
    # The file descriptor, not sys.stderr: what it leads to may be replaced later.
    faulthandler.enable(file=STDERR, all_threads=True)


def apply() -> None:
    """Let DAG files be read without handlers of fatal signals."""
    _importer.signal = SignalsOfImporter()
