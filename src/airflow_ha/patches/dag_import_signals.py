"""A fatal signal ends a process that runs DAG code.

Problem: importing a DAG file sets a Python handler for SIGSEGV. The handler returns to the faulting instruction, which
faults again, forever. A core and a slot are lost, and no timeout ends the process.
Patch: set no handler while a DAG file is imported. `end_at_fatal_signals()` sets the default action for each signal in
FATAL, after a Python traceback on standard error.
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
"""Signals that the kernel, or abort(), sends to a process that cannot continue."""
STDERR: Final = 2

_importer: Any = python_importer


class ImporterSignals:
    """The module `signal` for the DAG importer: handlers of fatal signals cannot be set."""

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    @staticmethod
    def signal(number: int, handler: Any) -> Any:
        """Set a handler like `signal.signal`; for a fatal signal, only return the current handler."""
        return signal.getsignal(number) if number in FATAL else signal.signal(number, handler)


def end_at_fatal_signals() -> None:
    """Let each signal in FATAL end this process, with all threads' tracebacks on standard error.

    Call it in the main thread before DAG code runs. Forks inherit it.
    """
    for number in FATAL:
        signal.signal(number, signal.SIG_DFL)
    # The file descriptor, because sys.stderr may be replaced later.
    faulthandler.enable(file=STDERR, all_threads=True)


def apply() -> None:
    """Import DAG files without handlers of fatal signals."""
    _importer.signal = ImporterSignals()
