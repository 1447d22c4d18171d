"""Patch of Airflow: each task's process has limits and a folder of its own, and leaves nothing behind.

Problem: a task is an equal of its worker's other processes: the kernel may take these when the task has taken all
memory. It shares /tmp and its working directory with all, a process that it leaves behind keeps its slot for 60 s
(`[workers] socket_cleanup_timeout`) and lives on, and when its supervisor is killed it runs on beside its next try.
Patch: at the fork, see `task_process/`: the OOM score, a folder, limits, fatal signals. The end of the process wakes
the supervisor (pidfd), which ends its descendants, also in sessions of their own: orphans become its children.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor` and `.coordinator`.
Upstream issue: https://github.com/apache/airflow/issues/65505 (the process group only).
Remove when: the test in `test_isolate_task_process.py` that names upstream fails, and scratch folders are no longer
wanted.
"""

from __future__ import annotations

import enum
import io
import os
import selectors
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
from airflow.configuration import AIRFLOW_HOME
from airflow.sdk.execution_time import coordinator, supervisor
from airflow.sdk.execution_time.supervisor import ActivitySubprocess, PsutilTracker, WatchedSubprocess
from celery.signals import worker_init, worker_process_init

from airflow_ha.patches.dag_import_signals import end_at_fatal_signals
from airflow_ha.task_process import container_memory, descendants, scratch
from airflow_ha.task_process.supervised_task import WATCH_AFTER_SECONDS, TaskRun

_fork_main: Any = supervisor._fork_main
_start: Any = WatchedSubprocess.start.__func__
_service_subprocess: Any = ActivitySubprocess._service_subprocess
_python: Any = coordinator._PythonCoordinator
_execute_task: Any = _python.execute_task

current: TaskRun | None = None
"""The task that this process runs: a process of the worker's pool has one at a time."""
_supervisor = os.getpid()
_worker_files: set[str] = set()
_swept = time.monotonic()


Signalled: Any = enum.IntEnum("Signalled", {number.name: -number for number in signal.Signals})  # type: ignore[misc]
"""The exit codes of processes that a signal ended: upstream asks for their names."""


class AccountedTracker(PsutilTracker):  # type: ignore[misc]  # Airflow has no types
    """Waits for a process, and notes the most memory that it had."""

    def wait(self, timeout: float | None) -> Any:
        """Return the exit code of the process.

        Raises:
            psutil.TimeoutExpired: It has not ended.
        """
        if timeout != 0:
            return super().wait(timeout)
        try:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for it: how it ended is not known
            return 1
        if not pid:
            raise self.TimeoutExpired(timeout, pid=self.pid)
        if current:
            current.peak = used.ru_maxrss << 10
        code = os.waitstatus_to_exitcode(status)
        return Signalled(code) if code in Signalled.__members__.values() else code


def prepare_worker(**_: Any) -> None:
    """Remove what an earlier life of this worker left; called by Celery in the main process."""
    with suppress(OSError):
        scratch.base().mkdir(parents=True, exist_ok=True)
    scratch.remove_leftovers(scratch.base(), scratch.TMP, psutil.Process(1).create_time())
    _worker_files.update(entry.name for entry in scratch.own_entries(scratch.TMP))


def prepare_supervisor(**_: Any) -> None:
    """Make ready what supervises tasks; called by Celery in each process of the pool."""
    container_memory.open_own_score()
    descendants.adopt_orphans()


def fork_main(*args: Any, **kwargs: Any) -> NoReturn:
    """Run as upstream's in the forked child, after the child has settled in."""
    descendants.end_with_parent(_supervisor)
    container_memory.close_inherited_score()
    end_at_fatal_signals()
    if current:
        current.prepare_process()
    _fork_main(*args, **kwargs)
    raise AssertionError("upstream's never returns")


def start(cls: type[WatchedSubprocess], **kwargs: Any) -> WatchedSubprocess:
    """Fork as upstream's does; the end of the child then wakes whoever waits for its sockets."""
    global _supervisor
    _supervisor = os.getpid()
    with container_memory.forks_go_first():
        process: WatchedSubprocess = _start(cls, **kwargs)
    if current:
        current.pid = process.pid
    with suppress(OSError):
        ended = io.FileIO(os.pidfd_open(process.pid))
        process.selector.register(ended, selectors.EVENT_READ, (lambda _: False, process._on_socket_closed))
    return process


def service_subprocess(self: ActivitySubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """Serve as upstream's does; a task that runs for a while is watched."""
    if current and not current.is_watched:
        current.watch(self._signal_subprocess)
        max_wait_time = min(max_wait_time, WATCH_AFTER_SECONDS)
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    return code


def check_subprocess_exit(
    self: ActivitySubprocess, raise_on_timeout: bool = False, expect_signal: int | None = None
) -> int | None:
    """Return the exit code as upstream's does, None while the process lives; what it left behind ends with it.

    Upstream's guess why it ended is not logged: report_task_exit.py says it, when all that the process wrote was read.

    Args:
        self: The supervisor of the process.
        raise_on_timeout: Whether a process that lives is an error.
        expect_signal: What upstream does not log.
    """
    code: int | None = self._exit_code
    if code is not None:
        return code
    try:
        code = self._exit_code = self._process.wait(timeout=0)
    except self._process.TimeoutExpired:
        if raise_on_timeout:
            raise
        return None
    self._process_exit_monotonic = time.monotonic()
    if current:
        current.end_leftovers()
        if current.leftovers:
            self.process_log.warning("Ended the processes that this task left behind", processes=current.leftovers)
    return code


def execute_task(self: Any, **kwargs: Any) -> Any:
    """Execute a task as upstream's does, in a folder of its own."""
    global current, _swept
    where = scratch.base()
    current = TaskRun(where, Path(AIRFLOW_HOME))
    try:
        return _execute_task(self, **kwargs)
    finally:
        current.close()
        current = None
        if time.monotonic() - _swept > scratch.SWEEP_SECONDS:
            _swept = time.monotonic()
            scratch.sweep(where, scratch.TMP, _worker_files, time.time())


def apply() -> None:
    """Give each task's process limits and a folder."""
    supervisor._fork_main = fork_main
    supervisor.PsutilTracker = AccountedTracker
    WatchedSubprocess.start = classmethod(start)  # type: ignore[arg-type]
    ActivitySubprocess._service_subprocess = service_subprocess
    ActivitySubprocess._check_subprocess_exit = check_subprocess_exit
    _python.execute_task = execute_task
    worker_init.connect(prepare_worker)
    worker_process_init.connect(prepare_supervisor)
