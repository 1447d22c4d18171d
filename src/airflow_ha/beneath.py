"""Open files below a folder in which somebody else may swap a file for a link at any moment.

A check of a path before it is opened is too early: `renameat2(RENAME_EXCHANGE)` puts a link there in between. Here each
component is opened relative to the one before, and the kernel follows no link. Python has no `openat2`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Without O_NONBLOCK, the open of a named pipe waits for its writer.
FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotBeneathError(OSError):
    """A path leads through `..`, a link, or something that is no regular file."""


def open_file(root: Path, relative: str | PurePosixPath) -> IO[bytes]:
    """Open a regular file below a folder for reading.

    Args:
        root: the folder; it may itself be a link.
        relative: the file's path below it.

    Raises:
        NotBeneathError: the path leads, or may lead, out of the folder.
        FileNotFoundError: there is no such file.
    """
    path = PurePosixPath(relative)
    with open_folder(root, path.parent) as folder:
        return open_file_in(folder, path.name)


def open_file_in(folder: int, name: str) -> IO[bytes]:
    """Open a regular file of an open folder for reading; errors as in `open_file`."""
    descriptor = _open(name, FLAGS, folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(name)
    return os.fdopen(descriptor, "rb")


@contextmanager
def open_folder(root: Path, relative: str | PurePosixPath) -> Iterator[int]:
    """Open a folder below another one; errors as in `open_file`.

    Yields:
        Its descriptor, for `os.listdir` and `dir_fd`.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in PurePosixPath(relative).parts:
            inner = _open(name, FLAGS | os.O_DIRECTORY, descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, folder: int) -> int:
    if name in ("", "..") or "/" in name:
        raise _refused(name)
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        # ELOOP: a link. ENOTDIR: a link, or a file, in place of a folder. ENXIO: a socket.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise _refused(name) from None
        raise


def _refused(name: str) -> NotBeneathError:
    return NotBeneathError(errno.EPERM, "it is `..`, a link, or no regular file or folder", name)
