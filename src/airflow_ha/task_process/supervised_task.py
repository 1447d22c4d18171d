"""One running task: its scratch folder, its limits, and the watch that terminates it when it exceeds them."""

from __future__ import annotations

import mmap
import multiprocessing.process
import os
import resource
import signal
import struct
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import psutil

from airflow_ha.sizes import GIB, shown
from airflow_ha.task_process import container_memory, descendants, process_tree, scratch, write_brake
from airflow_ha.task_process.ending import Breach
from airflow_ha.task_process.limits import limits
from airflow_ha.task_process.usage import ASK, Disk, ScratchUse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_ha.task_process.process_tree import TreeUse

WATCH_AFTER_SECONDS: Final = 2.0
"""A shorter task is not watched: the watch would add a tenth to its cost."""
WATCH_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 0.5
"""Time between two checks: normally, and when a limit may be close."""
CHECK_SHARE: Final = 20
"""A check takes at most one part in 20 of the time, for any number of files."""
PASSES: Final = 15
"""One check in 15 counts the files even if the disk has hardly grown."""
RESERVE_SHARE: Final = 0.03
RESERVE_BYTES: Final = 5 * GIB
"""The free space that tasks leave on their disk, which Postgres may share: the smaller of the two, by default."""
SCARCE_CHECKS: Final = 3
"""The checks in a row that find the disk full before a task is terminated: each task has reported its usage by then."""
BRAKED: Final = (
    f"The worker's disk is nearly full: this task cannot write files over {shown(write_brake.SMALL)} (File too large) "
    "until there is more free space (TASK_DISK_RESERVE)"
)
OOM_SECONDS: Final = 10.0
"""How long after an OOM kill a task's exit is attributed to it."""

_USE: Final = struct.Struct("=qq")
_USES: Final = 1024
_uses = mmap.mmap(-1, _USE.size * _USES)
"""The last reported usage of each pool process's task, by process id. It is mapped before the pool is forked."""


def reserve(disk: Disk) -> int:
    """Return the bytes that tasks leave free on a disk."""
    return limits().reserve or min(int(disk.size * RESERVE_SHARE), RESERVE_BYTES)


def must_brake(disk: Disk) -> bool:
    """Return whether tasks have used half of the reserve: the rest is for Postgres."""
    return disk.free < reserve(disk) // 2


def report_usage(used: int) -> None:
    """Report this process's task usage to the other processes of the pool."""
    _USE.pack_into(_uses, os.getpid() % _USES * _USE.size, os.getpid(), used)


def is_biggest(used: int) -> bool:
    """Return whether no other task of this worker uses more."""
    others = [(usage, pid) for pid, usage in _USE.iter_unpack(_uses[:]) if pid and Path(f"/proc/{pid}").exists()]
    return (used, os.getpid()) >= max(others, default=(0, 0))


class TaskRun:
    """The supervisor's state of the task that it runs.

    Args:
        where: The base of the task folders.
        home: AIRFLOW_HOME.
    """

    def __init__(self, where: Path, home: Path) -> None:
        self.limits = limits()
        self.started = time.monotonic()
        self.kept = descendants.reap(descendants.children())
        self.pid: int | None = None
        """The task's process after its fork. The watch does not reap it, because that would lose its exit code."""
        self.peak: int | None = None
        """The peak memory of the task's process or of one of its reaped children, in bytes."""
        self.ended_for: Breach | None = None
        """The limit for which this supervisor terminated the task."""
        self.leftovers: list[str] = []
        """The processes that the task left behind."""
        self.oom_kills = container_memory.oom_kills()
        self.oom_seen: float | None = None
        self.folder: Path | None = None
        self.use: ScratchUse | None = None
        self.is_braked = False
        """Whether the task's files may not grow, because its disk is nearly full."""
        with suppress(OSError):  # the disk is full or read-only: the task itself raises the error
            self.folder = scratch.create(where, home)
            self.use = ScratchUse(self.folder, where, (home / "logs", home / "artifacts"))
            disk = self.use.disk()
            self.lowest = disk.used
            self.is_braked = must_brake(disk)
        self._passes = self._scarce = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    # --- In the task's process

    def prepare_process(self) -> None:
        """Apply the limits, and use the task's folder as working directory and for temporary files."""
        # A task may fork and spawn. Celery's pool prevents that: daemons have no children, the authkey is billiard's,
        # and a spawned child fails at the import of a main module that needs Airflow's database.
        sys.modules["__main__"] = ModuleType("__main__")
        config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
        key = multiprocessing.process.AuthenticationString(bytes(config["authkey"]))  # type: ignore[attr-defined]
        config.update(daemon=False, authkey=key)
        if self.limits.allocation:
            resource.setrlimit(resource.RLIMIT_DATA, (self.limits.allocation, self.limits.allocation))
        # A core dump would fill the folder.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if self.is_braked:
            write_brake.apply([os.getpid()])
        if self.folder and self.use:
            os.chdir(self.folder)
            os.environ["AIRFLOW_HA_WORKER_TMP"] = os.environ.get("TMPDIR") or str(scratch.TMP)
            os.environ["TMPDIR"] = str(self.folder)
            tempfile.tempdir = None  # drop the cached folder
            signal.signal(ASK, self.use.signal_handler())

    # --- In the supervisor

    def watch(self, send: Callable[[signal.Signals], None], warn: Callable[[str], None]) -> None:
        """Start the watch of the task if it has run for WATCH_AFTER_SECONDS.

        Args:
            send: Sends a signal to the task.
            warn: Writes a warning into the task's log.
        """
        if self.is_braked and self._warn is None:
            with suppress(OSError):  # the log's own disk is full
                warn(BRAKED)
        self._warn = warn
        if self._thread is None and time.monotonic() - self.started >= WATCH_AFTER_SECONDS:
            thread = threading.Thread(target=self._watch, args=(send,), name="task-watch", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the worker has no process id left for a thread: perhaps because of this task
                self._pass(send)
            else:
                self._thread = thread

    @property
    def is_watched(self) -> bool:
        """Whether the watch of the task has started."""
        return self._thread is not None

    def _watch(self, send: Callable[[signal.Signals], None]) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            begun = time.monotonic()
            self._pass(send)
            is_close = self._is_tight or self._is_growing or self._is_large or self.ended_for
            pause = max(CLOSE_SECONDS if is_close else WATCH_SECONDS, CHECK_SHARE * (time.monotonic() - begun))

    def _pass(self, send: Callable[[signal.Signals], None]) -> None:
        self.note_oom_kills()
        descendants.reap(descendants.children() - self.kept - {self.pid})
        with suppress(psutil.Error, OSError):  # the task has exited
            number = signal.SIGKILL if self.ended_for else signal.SIGTERM
            self.ended_for = self.ended_for or self.check()
            if self.ended_for and self.ended_for.reason == "processes":
                descendants.kill_all(self.kept)
            elif self.ended_for:
                send(number)

    _is_growing = _is_large = _is_tight = False
    _warn: Callable[[str], None] | None = None

    def check(self) -> Breach | None:
        """Return the limit that the task exceeds; None if it may continue."""
        pids = self.processes()
        use = process_tree.measure(pids)
        if self.limits.threads and use.threads > self.limits.threads:
            return Breach(
                "processes",
                f"Too many processes: this task has {use.threads} processes and threads, the limit is "
                f"{self.limits.threads} (TASK_PIDS_LIMIT, by default half of the worker's)",
            )
        if text := self.check_memory(pids, use):
            return Breach("oom", text)
        if text := self.check_disk(pids):
            return Breach("scratch", text)
        return None

    def check_memory(self, pids: set[int], use: TreeUse) -> str | None:
        """Return why the task must be terminated for its memory; None if it may continue."""
        limit = self.limits.memory
        if limit is None:
            return None
        self._is_large = use.total > limit // 2
        used = use.largest
        if self.use:
            self.use.answers.is_memory_wanted = use.total > limit
            if use.total > limit >= used:
                used = max(used, self.use.memory(pids))
        if used <= limit:
            return None
        return (
            f"Out of memory (OOM): this task's processes use {shown(used)}, the limit is {shown(limit)} "
            "(TASK_MEMORY_LIMIT, by default half of the worker's memory)"
        )

    def processes(self) -> set[int]:
        """Return the ids of the task's processes."""
        return descendants.descendants() - self.kept

    def check_disk(self, pids: Collection[int]) -> str | None:
        """Return why the task must be terminated for its disk usage; None if it may continue."""
        if self.use is None:
            return None
        disk = self.use.disk()
        self.lowest = min(self.lowest, disk.used)
        self._is_growing = disk.used - self.lowest > self.limits.scratch // 2
        reserved = reserve(disk)
        self._is_tight = disk.free < 2 * reserved
        self.brake(pids, must_brake(disk))
        self._scarce = self._scarce + 1 if disk.free < reserved else 0
        self._passes += 1
        if not (self._is_growing or self._scarce or self._passes % PASSES == 0):
            return None
        used = self.use.measure(pids, self._over.is_set)
        report_usage(used)
        if used > self.limits.scratch:
            return (
                f"No space left on device: this task's files use {shown(used)}, "
                f"the limit is {shown(self.limits.scratch)} (TASK_SCRATCH_LIMIT)"
            )
        if self._scarce >= SCARCE_CHECKS and used > reserved // 10 and is_biggest(used):
            return (
                f"No space left on device: the worker's disk has {shown(disk.free)} free, tasks must leave "
                f"{shown(reserved)} free, and this task's files use the most, {shown(used)}"
            )
        return None

    def brake(self, pids: Collection[int], is_needed: bool) -> None:
        """Stop the growth of the task's files, or let them grow again."""
        if is_needed:
            write_brake.apply(pids)
            if not self.is_braked and self._warn:
                self._warn(BRAKED)
        elif self.is_braked:
            write_brake.release(pids)
        self.is_braked = is_needed

    def note_oom_kills(self) -> None:
        """Record the time of a new OOM kill in this worker."""
        if (now := container_memory.oom_kills()) != self.oom_kills:
            self.oom_kills, self.oom_seen = now, time.monotonic()

    def memory_ran_out(self) -> bool:
        """Return whether the kernel has killed a process of this worker for memory in the last OOM_SECONDS."""
        self.note_oom_kills()
        return self.oom_seen is not None and time.monotonic() - self.oom_seen < OOM_SECONDS

    def end_leftovers(self) -> None:
        """Terminate the processes that the task left behind."""
        self.leftovers += descendants.end_all(self.kept)

    def close(self) -> None:
        """Stop the watch, terminate leftover processes and remove the task's folder."""
        self._over.set()
        if self._thread:
            self._thread.join()
            report_usage(0)
        self.end_leftovers()
        if self.folder:
            scratch.remove(self.folder)
