"""The memory of a task's processes: what they use together, although forks share most of their pages."""

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
SHARED: Final = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s*(\d+) kB", re.MULTILINE)
"""The same, with each shared page divided by its users: /proc/PID/smaps_rollup, which takes 10 ms for each GiB."""


@dataclass(frozen=True)
class TreeMemory:
    """The memory of a task's processes in bytes.

    Attributes:
        largest: The memory of the largest one, so the least that all use together.
        total: The sum, in which a page that forks share counts once for each: the most that all use together.
    """

    largest: int
    total: int


def kib_sum(path: Path, field: re.Pattern[bytes]) -> int:
    """Return the sum of a /proc file's fields in bytes.

    Raises:
        OSError: The process has exited, or access is denied.
    """
    return sum(map(int, field.findall(path.read_bytes()))) * KIB


def memory(pids: Iterable[int]) -> TreeMemory:
    """Return what processes use, from the files that every user may read."""
    sizes = [0]
    for pid in pids:
        with suppress(OSError):
            sizes.append(kib_sum(Path(f"/proc/{pid}/status"), PRIVATE))
    return TreeMemory(largest=max(sizes), total=sum(sizes))


def share(pid: int | str) -> int:
    """Return a process's memory, with each shared page divided by its users.

    Args:
        pid: The process, or `self`.

    Raises:
        OSError: The process has exited, or is not dumpable and not the caller.
    """
    return kib_sum(Path(f"/proc/{pid}/smaps_rollup"), SHARED)
