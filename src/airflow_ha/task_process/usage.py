"""The disk usage of one task's files, and the exact memory of its processes.

Disk usage includes the task's folder, and files that its processes hold open elsewhere: under /tmp, deleted, or created
by the task in a volume that outlives it. A supervisor cannot read the open files or the memory map of a task's process
or its forks: they are not dumpable, so that other tasks cannot read their memory. It sends them SIGURG, which other
programs ignore, and they write their usage to shared memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.task_process import process_tree
from airflow_ha.task_process.file_birth import born
from airflow_ha.task_process.scratch import TMP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Files = dict[tuple[int, int], tuple[str, int]]
    """Device and inode of each file: its path, and its bytes on disk."""

ASK: Final = signal.SIGURG
ANSWER: Final = struct.Struct("=QQqd")
"""A file's device, inode, bytes on disk, and the time of the entry on the monotonic clock."""
ANSWERS: Final = 4096
PROBES: Final = 8
"""The most slots of the table to probe for one file."""
ANSWER_SECONDS: Final = 30.0
"""How long an entry is valid: a process inside a long C call responds late."""
MEMORY: Final = 0
"""The device of an entry that holds a process's memory, by its id; no file system has this number."""
MEMORY_ANSWER_SECONDS: Final = 5.0
"""How long an entry with memory is valid: a process may have released it since."""
BLOCK: Final = 512
"""Bytes of a block in `st_blocks`."""


def folder_use(folder: str, is_over: Callable[[], bool] = bool) -> int:
    """Return a folder's usage in bytes on disk; a file with several names counts once.

    Args:
        folder: The folder.
        is_over: Whether the task is over, so that the result is no longer needed.
    """
    total, hard_linked = 0, set()
    folders = [folder]
    while folders and not is_over():
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in hard_linked:
                            continue
                        hard_linked.add(status.st_ino)
                    total += status.st_blocks * BLOCK
    return total


@dataclass(frozen=True)
class Places:
    """Where a task may write.

    Attributes:
        folder: Its own folder.
        scratch: The folders of temporary files, each with a trailing slash.
        volumes: The folders of files that outlive the task, each with a trailing slash.
        since: The task's start in whole seconds since the epoch: an older file in a volume is not the task's.
    """

    folder: str
    scratch: tuple[str, ...]
    volumes: tuple[str, ...]
    since: float


def open_files(pid: int | str, places: Places) -> Files | None:
    """Return the files that a process writes outside its task's folder, and open deleted ones; None if denied.

    Args:
        pid: The process, or `self`.
        places: Where its task may write.
    """
    files: Files = {}
    where = f"/proc/{pid}/fd"
    try:
        names = [entry.name for entry in Path(where).iterdir()]
    except FileNotFoundError:
        return files
    except OSError:
        return None
    for name in names:
        with suppress(OSError):
            path = str(Path(where, name).readlink())
            is_in_volume = path.startswith(places.volumes)
            if is_in_volume or path.startswith(places.scratch):
                status = Path(where, name).stat()
                is_deleted = status.st_nlink == 0
                if stat.S_ISREG(status.st_mode) and (
                    is_deleted or (not path.startswith(places.folder + "/") and is_written(pid, name))
                ):
                    if is_in_volume and (born(f"{where}/{name}") or 0) < places.since:
                        continue
                    files[status.st_dev, status.st_ino] = path, status.st_blocks * BLOCK
    return files


def is_written(pid: int | str, descriptor: str) -> bool:
    """Return whether a process has a file open for writing."""
    if pid == "self":
        flags = fcntl.fcntl(int(descriptor), fcntl.F_GETFL)
    else:
        text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
        flags = int(text.partition("flags:")[2].split()[0], 8)
    return flags & os.O_ACCMODE != os.O_RDONLY


def ask(pid: int) -> None:
    """Ask a process of the task for its usage."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, ASK)


@dataclass(frozen=True)
class Disk:
    """The state of a disk, in bytes.

    Attributes:
        size: The total size.
        used: Used by all programs.
        free: Available to users other than root.
    """

    size: int
    used: int
    free: int


class Answers:
    """A shared table of the files that a task's processes use, by device and inode; forks share files.

    Its last byte is 1 while the supervisor also needs the processes' memory.
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, ANSWER.size * ANSWERS + 1)

    @property
    def is_memory_wanted(self) -> bool:
        """Whether a process writes its memory too."""
        return bool(self.memory[-1])

    @is_memory_wanted.setter
    def is_memory_wanted(self, wanted: bool) -> None:
        self.memory[-1] = wanted

    def write(self, key: tuple[int, int], size: int) -> None:
        """Write a file's entry into its own, a free or an expired slot."""
        now = time.monotonic()
        for probe in range(PROBES):
            at = (hash(key) + probe) % ANSWERS * ANSWER.size
            device, inode, _, written = ANSWER.unpack_from(self.memory, at)
            if (device, inode) == key or now - written > ANSWER_SECONDS:
                ANSWER.pack_into(self.memory, at, *key, size, now)
                return

    def read(self) -> dict[tuple[int, int], int]:
        """Return the bytes on disk by file, from valid entries."""
        return {key: size for key, size in self._entries(ANSWER_SECONDS) if key[0] != MEMORY}

    def read_memory(self) -> dict[int, int]:
        """Return the memory in bytes by process, from valid entries."""
        return {pid: size for (device, pid), size in self._entries(MEMORY_ANSWER_SECONDS) if device == MEMORY}

    def _entries(self, seconds: float) -> Iterator[tuple[tuple[int, int], int]]:
        since = time.monotonic() - seconds
        for device, inode, size, written in ANSWER.iter_unpack(self.memory[:-1]):
            if written > since:
                yield (device, inode), size


class OwnFiles:
    """The files that one process wrote outside its task's folder: those open now, and those closed but not deleted."""

    def __init__(self, places: Places, answers: Answers) -> None:
        self.places = places
        self.answers = answers
        self.seen: Files = {}

    def answer(self, *_: object) -> None:
        """Write this process's usage to the shared table; the handler of the signal ASK."""
        remaining: Files = {}
        for key, (path, _size) in self.seen.items():
            with suppress(OSError):
                status = Path(path).lstat()
                if (status.st_dev, status.st_ino) == key:
                    remaining[key] = path, status.st_blocks * BLOCK
        for key in self.seen.keys() - remaining.keys():
            self.answers.write(key, 0)
        self.seen = remaining | (open_files("self", self.places) or {})
        for key, (_path, size) in self.seen.items():
            self.answers.write(key, size)
        if self.answers.is_memory_wanted:
            with suppress(OSError):
                self.answers.write((MEMORY, os.getpid()), process_tree.share("self"))


class ScratchUse:
    """The supervisor's measurement of one task's disk usage and memory.

    Args:
        folder: The task's folder.
        where: The base of the task folders.
        volumes: The folders of files that outlive the task.
    """

    def __init__(self, folder: Path, where: Path, volumes: Iterable[Path]) -> None:
        self.folder = str(folder)
        self.where = str(where)
        self.places = Places(
            folder=str(folder),
            scratch=(f"{where}/", f"{TMP}/"),
            volumes=tuple(f"{volume}/" for volume in volumes),
            since=float(int(time.time())),
        )
        self.answers: Answers = Answers()

    def signal_handler(self) -> Callable[..., Any]:
        """Return the handler of ASK for the task's process."""
        return OwnFiles(self.places, self.answers).answer

    def measure(self, pids: Iterable[int], is_over: Callable[[], bool] = bool) -> int:
        """Return the task's usage in bytes from the last entries of its processes, and request new entries.

        Args:
            pids: The task's processes.
            is_over: Whether the task is over, so that the result is no longer needed.
        """
        # The supervisor's own file is the task's log.
        log = open_files("self", replace(self.places, scratch=(), since=0.0)) or {}
        files = self.answers.read() | {key: size for key, (_, size) in log.items()}
        for pid in pids:
            opened = open_files(pid, self.places)
            if opened is None:
                ask(pid)
            else:
                files.update({key: size for key, (_, size) in opened.items()})
        return folder_use(self.folder, is_over) + sum(files.values())

    def memory(self, pids: Iterable[int]) -> int:
        """Return the memory in bytes that processes use together, and request new entries if memory is wanted.

        A process that has not answered counts as 0: the result is never more than the truth.
        """
        answered, total = self.answers.read_memory(), 0
        for pid in pids:
            try:
                total += process_tree.share(pid)
            except PermissionError:
                total += answered.get(pid, 0)
                ask(pid)
            except OSError:  # it has exited
                continue
        return total

    def disk(self) -> Disk:
        """Return the state of the disk of the task folders."""
        disk = os.statvfs(self.where)
        return Disk(
            size=disk.f_blocks * disk.f_frsize,
            used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            free=disk.f_bavail * disk.f_frsize,
        )
