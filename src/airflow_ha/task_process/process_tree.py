"""A task's processes: their number, and the memory that they use together, although forks share most of their pages."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable

PRIVATE: Final = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s*(\d+) kB", re.MULTILINE)
"""A process's memory without its files, which the kernel can drop: /proc/PID/status, readable for every user."""
THREADS: Final = re.compile(rb"^Threads:\s*(\d+)", re.MULTILINE)
SHARED: Final = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s*(\d+) kB", re.MULTILINE)
"""The same, with each shared page divided by its users: /proc/PID/smaps_rollup, which takes 10 ms for each GiB."""


@dataclass(frozen=True)
class TreeUse:
    """What a task's processes use.

    Attributes:
        threads: Their number, each with all its threads: as the kernel counts them against a container's limit.
        largest: The memory in bytes of the largest one, so the least that all use together.
        total: The sum, in which a page that forks share counts once for each: the most that all use together.
    """

    threads: int
    largest: int
    total: int


def measure(pids: Iterable[int]) -> TreeUse:
    """Return what processes use, from the files that every user may read."""
    threads, sizes = 0, [0]
    for pid in pids:
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_bytes()
            threads += sum(map(int, THREADS.findall(status)))
            sizes.append(kib_sum(status, PRIVATE))
    return TreeUse(threads, largest=max(sizes), total=sum(sizes))


def kib_sum(text: bytes, field: re.Pattern[bytes]) -> int:
    """Return the sum of a /proc file's fields in bytes."""
    return sum(map(int, field.findall(text))) * KIB


def share(pid: int | str) -> int:
    """Return a process's memory, with each shared page divided by its users.

    Args:
        pid: The process, or `self`.

    Raises:
        OSError: The process has exited, or is not dumpable and not the caller.
    """
    return kib_sum(Path(f"/proc/{pid}/smaps_rollup").read_bytes(), SHARED)
