"""Overwrite texts wherever this process has them in memory."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ \S+ *(.*)")
"""A line of /proc/self/maps: a writable mapping that belongs to this process alone."""
LITERAL: Final[int] = int(re._constants.LITERAL)  # type: ignore[attr-defined]
PART: Final = 1 << 20
"""Bytes that are searched at a time."""

_libc: Any = ctypes.CDLL(None)
_libc.memmem.restype = ctypes.c_void_p
_libc.memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)


def overwrite(texts: Iterable[str]) -> int:
    """Overwrite each text in all its forms, also inside Python's strings, and return how often one was found.

    Args:
        texts: Long random texts: whatever contains the same bytes is overwritten too.

    Raises:
        OSError: This process may not read its own memory.
    """
    needles = [
        (ctypes.create_string_buffer(form, len(form)), replacement)
        for text in texts
        for form, replacement in zip(forms(text), forms("x" * len(text)), strict=True)
    ]
    overlap = max((ctypes.sizeof(needle) for needle, _ in needles), default=1) - 1
    part = ctypes.create_string_buffer(PART + overlap)
    buffers = [*(needle for needle, _ in needles), part]
    own = [(ctypes.addressof(buffer), ctypes.sizeof(buffer)) for buffer in buffers]
    number = 0
    # By the file, not by address: memory that is given back meanwhile is an error there, and not a fault.
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        for start, end in mappings():
            for at in range(start, end, PART):
                with suppress(OSError):
                    size = os.preadv(memory, [memoryview(part)[: min(end - at, PART + overlap)]], at)
                    for needle, replacement in needles:
                        for found in occurrences(part, size, needle):
                            if not any(first <= at + found < first + count for first, count in own):
                                os.pwrite(memory, replacement, at + found)
                                number += 1
    finally:
        os.close(memory)
        for buffer in buffers:
            ctypes.memset(buffer, 0, ctypes.sizeof(buffer))
    return number


def occurrences(part: Any, size: int, needle: Any) -> Iterator[int]:
    """Yield each place of a needle in the first bytes of a buffer."""
    start, length = ctypes.addressof(part), ctypes.sizeof(needle)
    at = _libc.memmem(start, size, needle, length)
    while at:
        yield at - start
        at = _libc.memmem(at + length, start + size - at - length, needle, length)


def forms(text: str) -> Iterator[bytes]:
    """Yield how Python stores a text: as a string, and in a compiled pattern, such as the secrets masker's.

    The pattern works on when the characters are replaced and the instructions between them stay.
    """
    yield text.encode()
    codes = [ord(character) for character in text]
    yield struct.pack(f"={len(codes)}I", *codes)
    pairs = [number for code in codes for number in (LITERAL, code)]
    yield struct.pack(f"={len(pairs)}I", *pairs)


def mappings() -> list[tuple[int, int]]:
    """Return the first and last address of the memory that may contain a text."""
    lines = (MAPPING.match(line) for line in Path("/proc/self/maps").read_text().splitlines())
    return [(int(line[1], 16), int(line[2], 16)) for line in lines if line and not line[3].startswith("[v")]
