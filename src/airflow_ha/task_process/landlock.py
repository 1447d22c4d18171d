"""Landlock: a process gives up rights on files for itself and its descendants, without root.

https://docs.kernel.org/userspace-api/landlock.html. Its rules allow and do not forbid, so a path is excluded by rules
for everything beside it and beside its parents. A confined process can also not trace one that is not confined with it.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The numbers are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RETURN_VERSION: Final = 1
PATH_BENEATH: Final = 1

WRITE_FILE, READ_FILE, TRUNCATE = 1 << 1, 1 << 2, 1 << 14
MAKE_AND_REMOVE: Final = 0x1FF0
"""Creation and removal of files and folders of every kind."""
REFER: Final = 1 << 13
"""Moves and links between folders."""
MIN_VERSION: Final = 2
"""Linux 5.19. The version before refuses REFER everywhere; `mv` would fail in every task."""
VERSION_WITH_TRUNCATE: Final = 3
"""Linux 6.2. Before, truncate(2) is not refused; an open file is."""
SIGNALS: Final = 1 << 1
VERSION_WITH_SIGNALS: Final = 6
"""Linux 6.12."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Rights(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def obstacle() -> str:
    """Return why this process cannot confine itself; empty if it can."""
    if (version := _version()) < MIN_VERSION:
        return f"Landlock has version {version} here, version {MIN_VERSION} (Linux 5.19) is needed"
    status = Path("/proc/self/status").read_text()
    is_root = bool(int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16) >> 21 & 1)
    if not is_root and not re.search(r"NoNewPrivs:\s*1", status):
        return "Landlock needs the container's security_opt no-new-privileges"
    return ""


def forbid_reads(files: Sequence[Path]) -> None:
    """Refuse to this process, from now on, to read these files, and to signal processes that it does not fork.

    New entries of their parent folders are refused too. Signals are refused from Linux 6.12 on.

    Raises:
        OSError: the kernel refused; the process is not confined.
    """
    scoped = SIGNALS if _version() >= VERSION_WITH_SIGNALS else 0
    _confine(files, READ_FILE, READ_FILE | REFER, scoped)


def forbid_writes(folder: Path) -> None:
    """Refuse to this process, from now on, to write to a folder and to create or remove files in it.

    New entries of its parent folders are refused too. Attributes (mode, times) can still be changed.

    Raises:
        OSError: the kernel refused; the process is not confined.
    """
    on_files = WRITE_FILE | (TRUNCATE if _version() >= VERSION_WITH_TRUNCATE else 0)
    _confine([folder], on_files, on_files | MAKE_AND_REMOVE | REFER)


def _confine(excluded: Sequence[Path], on_files: int, on_folders: int, scoped: int = 0) -> None:
    # An older kernel refuses a longer structure, unless what it does not know is zero.
    rights = _Rights(on_folders, 0, scoped)
    size = ctypes.sizeof(rights) if scoped else ctypes.sizeof(ctypes.c_uint64)
    ruleset = _call(CREATE_RULESET, ctypes.byref(rights), size, 0)
    try:
        for path in _beside({Path(os.path.realpath(path)) for path in excluded}):
            with suppress(FileNotFoundError):
                _allow(ruleset, path, on_files, on_folders)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _beside(excluded: set[Path]) -> Iterator[str]:
    """Yield the paths beside the excluded ones and beside their parents."""
    parents = {parent for path in excluded for parent in path.parents}
    for parent in parents:
        with os.scandir(parent) as entries:
            yield from (
                entry.path
                for entry in entries
                if not entry.is_symlink() and Path(entry.path) not in excluded and Path(entry.path) not in parents
            )


def _version() -> int:
    """Return the version of the kernel's interface; 0 if it has none, or a seccomp profile refuses it."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, RETURN_VERSION)))


def _allow(ruleset: int, path: str, on_files: int, on_folders: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = _PathBeneath(on_folders if is_folder else on_files, descriptor)
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
