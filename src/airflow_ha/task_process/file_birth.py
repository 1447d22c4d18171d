"""When a file was created. Python's os.stat() does not return it on Linux."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

AT_FDCWD: Final = -100
STATX_BTIME: Final = 0x800
STATX_BYTES: Final = 256
BIRTH_OFFSET: Final = 80
"""From <linux/stat.h>: the size of struct statx, and where its stx_btime begins."""

_libc = ctypes.CDLL(None)


def born(path: str) -> float | None:
    """Return the time of a file's creation, in whole seconds since the epoch; None if the file system has none."""
    status = ctypes.create_string_buffer(STATX_BYTES)
    if _libc.statx(AT_FDCWD, os.fsencode(path), 0, STATX_BTIME, status):
        return None
    (known,) = struct.unpack_from("=I", status)
    (seconds,) = struct.unpack_from("=q", status, BIRTH_OFFSET)
    return float(seconds) if known & STATX_BTIME else None
