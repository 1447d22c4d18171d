"""Each task process has its own limits and scratch folder, and leaves no process behind.

Problem: the kernel ranks a task equal to its worker's other processes, so a task that uses all memory may get those
killed. A task shares /tmp and the working directory. A process that it leaves behind keeps its slot for 60 s
(`[workers] socket_cleanup_timeout`) and continues. A task whose supervisor was killed runs on beside its next try.
Patch: set the OOM score, a folder, limits and fatal signals at the fork (see `task_process/`). A pidfd wakes the
supervisor when the process ends. It then ends all descendants, which become its children, also in other sessions.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor` and `.coordinator`.
Upstream issue: https://github.com/apache/airflow/issues/65505 (the process group only).
Remove when: the test in `test_isolate_task_process.py` that names upstream fails, and scratch folders are not needed.
"""

from __future__ import annotations

import enum
import io
import logging
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
from airflow_ha.task_process import container_memory, container_pids, descendants, scratch
from airflow_ha.task_process.supervised_task import WATCH_AFTER_SECONDS, TaskRun

log = logging.getLogger(__name__)

_fork_main: Any = supervisor._fork_main
_start: Any = WatchedSubprocess.start.__func__
_service_subprocess: Any = ActivitySubprocess._service_subprocess
_python: Any = coordinator._PythonCoordinator
_execute_task: Any = _python.execute_task

current: TaskRun | None = None
"""The current task: a pool process runs one task at a time."""
_supervisor = os.getpid()
_worker_files: set[str] = set()
_last_sweep = time.monotonic()


SignalExitCode: Any = enum.IntEnum("SignalExitCode", {number.name: -number for number in signal.Signals})  # type: ignore[misc]
"""Exit codes of processes that a signal ended; upstream reads their names."""


class AccountingTracker(PsutilTracker):  # type: ignore[misc]  # Airflow has no types
    """Waits for a process and records its peak memory."""

    def wait(self, timeout: float | None) -> Any:
        """Return the exit code of the process.

        Raises:
            psutil.TimeoutExpired: The process still runs.
        """
        if timeout != 0:
            return super().wait(timeout)
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:  # another thread reaped it: its exit code is unknown
            return 1
        if not pid:
            raise self.TimeoutExpired(timeout, pid=self.pid)
        if current:
            current.peak = usage.ru_maxrss << 10
        code = os.waitstatus_to_exitcode(status)
        return SignalExitCode(code) if code in SignalExitCode.__members__.values() else code


def prepare_worker(**_: Any) -> None:
    """Remove the leftovers of the worker's previous container run. Celery calls it in the main process."""
    with suppress(OSError):
        scratch.base().mkdir(parents=True, exist_ok=True)
    scratch.remove_leftovers(scratch.base(), scratch.TMP, psutil.Process(1).create_time())
    _worker_files.update(entry.name for entry in scratch.own_entries(scratch.TMP))


def prepare_supervisor(**_: Any) -> None:
    """Prepare a process that supervises tasks. Celery calls it in each pool process."""
    container_memory.open_own_score()
    descendants.adopt_orphans()


def fork_main(*args: Any, **kwargs: Any) -> NoReturn:
    """Set up the forked child, then run upstream's main function."""
    descendants.end_with_parent(_supervisor)
    container_memory.close_inherited_score()
    end_at_fatal_signals()
    if current:
        current.prepare_process()
    _fork_main(*args, **kwargs)
    raise AssertionError("upstream's function never returns")


def start(cls: type[WatchedSubprocess], **kwargs: Any) -> WatchedSubprocess:
    """Fork as upstream does; let the child's exit wake the supervisor that waits for its sockets."""
    global _supervisor
    _supervisor = os.getpid()
    with container_memory.forks_go_first():
        process: WatchedSubprocess = _start(cls, **kwargs)
    if current:
        current.pid = process.pid
    with suppress(OSError):
        exit_event = io.FileIO(os.pidfd_open(process.pid))
        process.selector.register(exit_event, selectors.EVENT_READ, (lambda _: False, process._on_socket_closed))
    return process


def service_subprocess(self: ActivitySubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """Call the upstream method; watch a task that runs for a while."""
    if current and not current.is_watched:
        current.watch(self._signal_subprocess, self.process_log.warning)
        max_wait_time = min(max_wait_time, WATCH_AFTER_SECONDS)
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    return code


def check_subprocess_exit(
    self: ActivitySubprocess, raise_on_timeout: bool = False, expect_signal: int | None = None
) -> int | None:
    """Return the exit code, or None while the process runs; end the processes that it left behind.

    Upstream's guess of the cause is not logged: report_task_exit.py reports it after all output was read.

    Args:
        self: The supervisor of the process.
        raise_on_timeout: Whether a running process is an error.
        expect_signal: Signal that upstream does not log.
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
    """Call the upstream method with the task's own folder."""
    global current, _last_sweep
    if not container_pids.wait_for_room():
        log.warning("The worker has hardly a process id left: other tasks have too many processes (TASK_PIDS_LIMIT)")
    where = scratch.base()
    current = TaskRun(where, Path(AIRFLOW_HOME))
    try:
        return _execute_task(self, **kwargs)
    finally:
        current.close()
        current = None
        if time.monotonic() - _last_sweep > scratch.SWEEP_SECONDS:
            _last_sweep = time.monotonic()
            scratch.sweep(where, scratch.TMP, _worker_files, time.time())


def apply() -> None:
    """Give each task process its own limits and folder."""
    supervisor._fork_main = fork_main
    supervisor.PsutilTracker = AccountingTracker
    WatchedSubprocess.start = classmethod(start)  # type: ignore[arg-type]
    ActivitySubprocess._service_subprocess = service_subprocess
    ActivitySubprocess._check_subprocess_exit = check_subprocess_exit
    _python.execute_task = execute_task
    worker_init.connect(prepare_worker)
    worker_process_init.connect(prepare_supervisor)
