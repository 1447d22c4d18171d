"""Removal of old task logs: by age, by the size of all, and before the disk is full.

Tasks cannot write to the folder where the kernel has Landlock; elsewhere they could put links there. So every file is
removed relative to an open folder, and no link is followed.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_ha.maintenance.removal import Removal
from airflow_ha.maintenance.retention import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from airflow_ha.maintenance.pace import Pace
    from airflow_ha.maintenance.retention import Limits

KIND: Final = "logs"
BLOCK: Final = 512
"""Unit of `st_blocks`."""
DAG_PREFIX, RUN_PREFIX = "dag_id=", "run_id="
"""How names of folders begin: `[logging] log_filename_template`."""


def remove(
    root: Path,
    before: Callable[[str | None], float],
    active_runs: Callable[[str], Collection[str]],
    pace: Pace,
    *,
    is_dry_run: bool,
) -> Removal:
    """Remove the log files that were last written before a time, and empty folders that are a day old.

    Args:
        root: The folder of logs.
        before: Returns the time, in seconds since the epoch, for a DAG's id; None for other files.
        active_runs: Returns the runs of a DAG whose logs stay.
        pace: When to pause.
        is_dry_run: Whether the files are only counted.
    """
    number = size = 0
    for entry in folders(root):
        dag_id = entry.name.removeprefix(DAG_PREFIX) if entry.name.startswith(DAG_PREFIX) else None
        kept = set() if dag_id is None else {f"{RUN_PREFIX}{run_id}" for run_id in active_runs(dag_id)}
        for descriptor, name, status in old_files(entry.path, before(dag_id), kept, pace, is_dry_run=is_dry_run):
            if not is_dry_run:
                os.unlink(name, dir_fd=descriptor)
            number += 1
            size += status.st_blocks * BLOCK
    return Removal(KIND, number, size)


def folders(root: Path) -> list[os.DirEntry[str]]:
    """Return the folders in a folder, without links."""
    with os.scandir(root) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def old_files(
    top: str, before: float, kept: Collection[str], pace: Pace, *, is_dry_run: bool
) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield the old files below a folder, and remove its empty folders unless this is a dry run.

    Args:
        top: The folder.
        before: Files that were last written before this time are old.
        kept: Names of folders in it that stay as they are.
        pace: When to pause.
        is_dry_run: Whether empty folders stay.

    Yields:
        The descriptor of the file's folder, the file's name and its status.
    """
    for path, inner, names, descriptor in os.fwalk(top, topdown=False, follow_symlinks=False):
        if path[len(top) + 1 :].partition("/")[0] in kept:
            continue
        for name in names:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if status.st_mtime < before:
                    yield descriptor, name, status
            pace.rest()
        if not is_dry_run:
            remove_empty(descriptor, [name for name in inner if name not in kept or path != top], time.time() - DAY)


def remove_empty(parent: int, names: list[str], before: float) -> None:
    """Remove empty folders that did not change since a time.

    A removal of a file changes its folder, so the folder goes in a later run: a try that starts meanwhile keeps the
    folder that it just created.
    """
    for name in names:
        with suppress(OSError):  # it is not empty
            if os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime < before:
                os.rmdir(name, dir_fd=parent)


def sizes_by_day(root: Path, now: float, pace: Pace) -> Counter[int]:
    """Return the bytes of all files by their age in full days."""
    sizes: Counter[int] = Counter()
    for _, _, names, descriptor in os.fwalk(root, follow_symlinks=False):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    sizes[max(0, int((now - status.st_mtime) / DAY))] += status.st_blocks * BLOCK
            pace.rest()
    return sizes


def fitting_days(sizes: Mapping[int, int], allowed: int) -> int | None:
    """Return for how many days logs fit into a number of bytes, at least one day; None if all fit."""
    total = 0
    for day in sorted(sizes):
        total += sizes[day]
        if total > allowed:
            return max(1, day)
    return None


def allowed_bytes(limits: Limits, logs: int, disk: tuple[int, int]) -> int | None:
    """Return how many bytes of logs may stay; None without a limit.

    Args:
        limits: What is kept.
        logs: Bytes of all logs.
        disk: Used and free bytes of their disk, as `df` counts them.
    """
    used, free = disk
    excess = used - (used + free) * limits.disk_percent // 100
    allowed = [limits.logs_bytes] if limits.logs_bytes else []
    allowed += [max(0, logs - excess)] if limits.disk_percent < 100 and excess > 0 else []
    return min(allowed, default=None)


def oldest_allowed(root: Path, limits: Limits, now: float, pace: Pace) -> float:
    """Return the time before which logs go by size: 0 if all fit. The last day always stays."""
    sizes = sizes_by_day(root, now, pace)
    usage = shutil.disk_usage(root)
    allowed = allowed_bytes(limits, sizes.total(), (usage.used, usage.free))
    days = None if allowed is None else fitting_days(sizes, allowed)
    return 0.0 if days is None else now - days * DAY
