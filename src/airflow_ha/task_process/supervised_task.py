"""One task, for as long as its process runs: its folder, its limits, and who ends it when it goes over them."""

from __future__ import annotations

import functools
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
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import psutil

from airflow_ha.task_process import container_memory, descendants, scratch
from airflow_ha.task_process.size import shown, size
from airflow_ha.task_process.usage import ASK, Disk, ScratchUse

if TYPE_CHECKING:
    from collections.abc import Callable

WATCH_AFTER_SECONDS: Final = 2.0
"""A task that ends sooner is not watched: that would be a tenth of what it costs."""
WATCH_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 0.5
"""Between two checks, usually and when a limit may be near."""
CHECK_SHARE: Final = 20
"""A check takes at most one in so many seconds, however many files there are."""
PASSES: Final = 15
"""One check in so many counts the files though the disk has hardly grown."""
RESERVE_SHARE: Final = 0.03
RESERVE_BYTES: Final = 5 << 30
"""What tasks leave free of their disk, which Postgres may share: the smaller of the two."""
SCARCE_CHECKS: Final = 3
"""So many checks find the disk too full before a task is ended: by then each task has said what it uses."""
OOM_SECONDS: Final = 10.0
"""How soon after the kernel killed for memory a task's end is put down to it."""
DEFAULT_SCRATCH: Final = "10g"

_USE: Final = struct.Struct("=qq")
_USES: Final = 1024
_uses = mmap.mmap(-1, _USE.size * _USES)
"""What each process of the pool, by its id, last said that its task uses. Made before the pool is forked."""


@dataclass(frozen=True)
class Limits:
    """What one task may take.

    Attributes:
        memory: The bytes that each of its processes may allocate; None: what the worker has.
        scratch: The bytes on disk of its temporary files.
    """

    memory: int | None
    scratch: int


@functools.cache
def limits() -> Limits:
    """Return the limits that compose/.env sets."""
    return Limits(
        memory=size(os.environ.get("AIRFLOW_HA_TASK_MEMORY_LIMIT", "")),
        scratch=size(os.environ.get("AIRFLOW_HA_TASK_SCRATCH_LIMIT", "")) or size(DEFAULT_SCRATCH) or 0,
    )


def reserve(disk: Disk) -> int:
    """Return how many bytes of a disk tasks leave free."""
    return min(int(disk.size * RESERVE_SHARE), RESERVE_BYTES)


def say_use(used: int) -> None:
    """Let the other processes of the pool know what this one's task uses."""
    _USE.pack_into(_uses, os.getpid() % _USES * _USE.size, os.getpid(), used)


def is_biggest(used: int) -> bool:
    """Whether no other task of this worker uses more."""
    others = [(theirs, pid) for pid, theirs in _USE.iter_unpack(_uses[:]) if pid and Path(f"/proc/{pid}").exists()]
    return (used, os.getpid()) >= max(others, default=(0, 0))


class TaskRun:
    """What the supervisor knows of the one task that it runs.

    Args:
        where: The base of the tasks' folders.
        home: AIRFLOW_HOME.
    """

    def __init__(self, where: Path, home: Path) -> None:
        self.limits = limits()
        self.started = time.monotonic()
        self.kept = descendants.reap(descendants.children())
        self.pid: int | None = None
        """The task's process, once it is there: who waits for it learns how it ended."""
        self.peak: int | None = None
        """The most memory that the task's process, or one of those it waited for, had at once, in bytes."""
        self.ended_for: str | None = None
        """Why this supervisor ended the task."""
        self.left: list[str] = []
        """The processes that the task left behind."""
        self.oom_kills = container_memory.oom_kills()
        self.oom_seen: float | None = None
        self.folder: Path | None = None
        self.use: ScratchUse | None = None
        with suppress(OSError):  # the disk is full, or read-only: the task will say what it misses
            self.folder = scratch.create(where, home)
            self.use = ScratchUse(self.folder, where)
            self.lowest = self.use.disk().used
        self._passes = self._scarce = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    # --- In the task's process

    def settle_in(self) -> None:
        """Take the task's folder as working directory and for temporary files, and the limits."""
        # Celery's pool is of daemons, which may have no children, has a key of billiard's, which no other process is
        # given, and a main module that fails where Airflow's database is refused: a task may fork and spawn.
        sys.modules["__main__"] = ModuleType("__main__")
        config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
        key = multiprocessing.process.AuthenticationString(bytes(config["authkey"]))  # type: ignore[attr-defined]
        config.update(daemon=False, authkey=key)
        if self.limits.memory:
            resource.setrlimit(resource.RLIMIT_DATA, (self.limits.memory, self.limits.memory))
        # The folder would be where a core is dumped.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if self.folder and self.use:
            os.chdir(self.folder)
            os.environ["AIRFLOW_HA_WORKER_TMP"] = os.environ.get("TMPDIR") or str(scratch.TMP)
            os.environ["TMPDIR"] = str(self.folder)
            tempfile.tempdir = None  # it is asked for again
            signal.signal(ASK, self.use.in_the_task())

    # --- In the supervisor

    def watch(self, send: Callable[[signal.Signals], None]) -> None:
        """Begin to watch the task, if it has run for long enough.

        Args:
            send: Sends a signal to the task.
        """
        if self._thread is None and time.monotonic() - self.started >= WATCH_AFTER_SECONDS:
            self._thread = threading.Thread(target=self._watch, args=(send,), name="task-watch", daemon=True)
            self._thread.start()

    @property
    def is_watched(self) -> bool:
        """Whether the task ran for long enough to be watched."""
        return self._thread is not None

    def _watch(self, send: Callable[[signal.Signals], None]) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            begun = time.monotonic()
            self.note_oom_kills()
            descendants.reap(descendants.children() - self.kept - {self.pid})
            with suppress(psutil.Error, OSError):  # it has ended by itself
                if self.ended_for:
                    send(signal.SIGKILL)
                elif reason := self.check_scratch():
                    self.ended_for = reason
                    send(signal.SIGTERM)
            is_close = self._scarce > 0 or self._is_growing
            pause = max(CLOSE_SECONDS if is_close else WATCH_SECONDS, CHECK_SHARE * (time.monotonic() - begun))

    _is_growing = False

    def check_scratch(self) -> str | None:
        """Return why the task must end for the disk it uses, None when it need not."""
        if self.use is None:
            return None
        disk = self.use.disk()
        self.lowest = min(self.lowest, disk.used)
        self._is_growing = disk.used - self.lowest > self.limits.scratch // 2
        least = reserve(disk)
        self._scarce = self._scarce + 1 if disk.free < least else 0
        self._passes += 1
        if not (self._is_growing or self._scarce or self._passes % PASSES == 0):
            return None
        used = self.use.measure(descendants.descendants(), self._over.is_set)
        say_use(used)
        if used > self.limits.scratch:
            return (
                f"No space left on device: this task's temporary files take {shown(used)}, "
                f"and a task may take {shown(self.limits.scratch)} (TASK_SCRATCH_LIMIT)"
            )
        if self._scarce >= SCARCE_CHECKS and used > least // 10 and is_biggest(used):
            return (
                f"No space left on device: {shown(disk.free)} of the worker's disk are free, tasks leave "
                f"{shown(least)} to others, and this task's temporary files take most, {shown(used)}"
            )
        return None

    def note_oom_kills(self) -> None:
        """Note when the kernel last killed a process of this worker for memory."""
        if (now := container_memory.oom_kills()) != self.oom_kills:
            self.oom_kills, self.oom_seen = now, time.monotonic()

    def memory_ran_out(self) -> bool:
        """Whether the kernel has just killed a process of this worker for memory."""
        self.note_oom_kills()
        return self.oom_seen is not None and time.monotonic() - self.oom_seen < OOM_SECONDS

    def end_what_is_left(self) -> None:
        """End the processes that the task left behind."""
        self.left += descendants.end_all(self.kept)

    def close(self) -> None:
        """End what is left of the task, its folder included."""
        self._over.set()
        if self._thread:
            self._thread.join()
            say_use(0)
        self.end_what_is_left()
        if self.folder:
            scratch.remove(self.folder)
