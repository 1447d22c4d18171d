"""How much of the disk one task uses for its scratch files.

That is what its folder holds, and what its processes hold open elsewhere: under /tmp, or deleted. A supervisor may not
look at the open files of a task's process, nor of its forks: they are not dumpable, which keeps other tasks from
reading their memory. So it asks them (SIGURG, ignored by every other program), and they answer in memory that both
share.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.task_process.scratch import TMP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Files = dict[tuple[int, int], tuple[str, int]]
    """Device and inode of each file: its path, and its bytes on disk."""

ASK: Final = signal.SIGURG
ANSWER: Final = struct.Struct("=QQqd")
"""Of one file: device, inode, bytes on disk, and when that was written, by the monotonic clock."""
ANSWERS: Final = 4096
PROBES: Final = 8
"""Places in the table that one file may have."""
ANSWER_SECONDS: Final = 30.0
"""How long an answer counts: a process in a long call of C answers late."""
BLOCK: Final = 512
"""Bytes of a block in `st_blocks`."""


def folder_use(folder: str, is_over: Callable[[], bool] = bool) -> int:
    """Return the bytes on disk of what a folder holds; a file with several names counts once.

    Args:
        folder: The folder.
        is_over: Whether nobody waits for the answer any more.
    """
    total, several = 0, set()
    folders = [folder]
    while folders and not is_over():
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in several:
                            continue
                        several.add(status.st_ino)
                    total += status.st_blocks * BLOCK
    return total


def open_files(pid: int | str, folder: str, roots: tuple[str, ...]) -> Files | None:
    """Return the files that a process holds open outside its task's folder; None when we may not look.

    Args:
        pid: The process, or `self`.
        folder: The task's, whose files are counted there, unless they are deleted.
        roots: Where its scratch files can be, each with a slash at its end.
    """
    found: Files = {}
    where = f"/proc/{pid}/fd"
    try:
        names = [entry.name for entry in Path(where).iterdir()]
    except FileNotFoundError:
        return found
    except OSError:
        return None
    for name in names:
        with suppress(OSError):
            path = str(Path(where, name).readlink())
            if path.startswith(roots):
                status = Path(where, name).stat()
                is_deleted = status.st_nlink == 0
                if stat.S_ISREG(status.st_mode) and (
                    is_deleted or (not path.startswith(folder + "/") and is_written(pid, name))
                ):
                    found[status.st_dev, status.st_ino] = path, status.st_blocks * BLOCK
    return found


def is_written(pid: int | str, descriptor: str) -> bool:
    """Whether a process has a file open for writing."""
    if pid == "self":
        flags = fcntl.fcntl(int(descriptor), fcntl.F_GETFL)
    else:
        text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
        flags = int(text.partition("flags:")[2].split()[0], 8)
    return flags & os.O_ACCMODE != os.O_RDONLY


@dataclass(frozen=True)
class Disk:
    """The bytes of a disk.

    Attributes:
        size: All.
        used: By anybody.
        free: For a user who is not root.
    """

    size: int
    used: int
    free: int


class Answers:
    """The files that a task's processes say they use, by device and inode: forks share the files of their parent."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, ANSWER.size * ANSWERS)

    def write(self, key: tuple[int, int], size: int) -> None:
        """Note a file, in place of what was noted of it, of a place that is free, or of an old answer."""
        now = time.monotonic()
        for probe in range(PROBES):
            at = (hash(key) + probe) % ANSWERS * ANSWER.size
            device, inode, _, written = ANSWER.unpack_from(self.memory, at)
            if (device, inode) == key or now - written > ANSWER_SECONDS:
                ANSWER.pack_into(self.memory, at, *key, size, now)
                return

    def read(self) -> dict[tuple[int, int], int]:
        """Return the bytes of each file."""
        since = time.monotonic() - ANSWER_SECONDS
        return {
            (device, inode): size
            for device, inode, size, written in ANSWER.iter_unpack(self.memory[:])
            if written > since
        }


class OwnFiles:
    """What one process has written outside its task's folder: what it holds open, and what it closed and left there."""

    def __init__(self, folder: str, roots: tuple[str, ...], answers: Answers) -> None:
        self.folder = folder
        self.roots = roots
        self.answers = answers
        self.seen: Files = {}

    def answer(self, *_: object) -> None:
        """Write this process's use where its supervisor reads it; called by the signal ASK."""
        left: Files = {}
        for key, (path, _size) in self.seen.items():
            with suppress(OSError):
                status = Path(path).lstat()
                if (status.st_dev, status.st_ino) == key:
                    left[key] = path, status.st_blocks * BLOCK
        for key in self.seen.keys() - left.keys():
            self.answers.write(key, 0)
        self.seen = left | (open_files("self", self.folder, self.roots) or {})
        for key, (_path, size) in self.seen.items():
            self.answers.write(key, size)


class ScratchUse:
    """What one task uses, as its supervisor sees it.

    Args:
        folder: The task's.
        where: The base of the tasks' folders.
    """

    def __init__(self, folder: Path, where: Path) -> None:
        self.folder = str(folder)
        self.where = str(where)
        self.roots: tuple[str, ...] = (f"{where}/", f"{TMP}/")
        self.answers: Answers = Answers()

    def in_the_task(self) -> Callable[..., Any]:
        """Return the handler of ASK for the task's process."""
        return OwnFiles(self.folder, self.roots, self.answers).answer

    def measure(self, pids: Iterable[int], is_over: Callable[[], bool] = bool) -> int:
        """Return the bytes that the task uses, by what its processes last answered, and ask them anew.

        Args:
            pids: The task's processes.
            is_over: Whether nobody waits for the answer any more.
        """
        files = self.answers.read()
        for pid in pids:
            theirs = open_files(pid, self.folder, self.roots)
            if theirs is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, ASK)
            else:
                files.update({key: size for key, (_, size) in theirs.items()})
        return folder_use(self.folder, is_over) + sum(files.values())

    def disk(self) -> Disk:
        """Return how full the disk of the tasks' folders is."""
        disk = os.statvfs(self.where)
        return Disk(
            size=disk.f_blocks * disk.f_frsize,
            used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            free=disk.f_bavail * disk.f_frsize,
        )
