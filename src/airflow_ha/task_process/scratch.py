"""The folder in which one task works, and what is left in a worker's /tmp.

Each task has a folder of its own, as its working directory and as TMPDIR, removed when the task ends. What a task
writes to another place under /tmp and leaves is removed when it is a day old, or when the worker starts.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

TMP: Final = Path("/tmp")  # noqa: S108 (the container's own, of one user)
LEFT_SECONDS: Final = 86400.0
"""How long a file stays that no running task can have written."""
OWN_PREFIXES: Final = ("task-", "airflow-ha-")
"""Of what the sweep leaves alone: tasks' folders, and what the worker shares with its tasks (telemetry/address.py)."""
SWEEP_SECONDS: Final = 3600.0
"""Between two sweeps by one process of the pool."""


def base() -> Path:
    """Return where the tasks' folders are made."""
    return Path(os.environ.get("AIRFLOW_HA_SCRATCH") or TMP)


def prefix() -> str:
    """Return what the names of this worker's folders begin with; others may share the base."""
    return f"task-{zlib.crc32(gethostname().encode()):08x}-"


def create(where: Path, home: Path) -> Path:
    """Make a task's folder.

    Args:
        where: The base. The folder's name has when it was made, and is short: sockets in it may have 107 characters.
        home: AIRFLOW_HOME, in which stock Airflow's tasks run: what is there can be read by the same relative paths.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix()}{int(time.time()):x}-", dir=where))
    with suppress(OSError), os.scandir(home) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry.path)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder or a file, folders that were made read-only included; nobody uses it any more."""
    if not folder.is_dir() or folder.is_symlink():
        with suppress(OSError):
            folder.unlink()
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        folder.chmod(0o700)
        for parent, names, _ in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)  # noqa: PTH118 (there may be a million)
                if not os.path.islink(path):  # noqa: PTH114
                    with suppress(OSError):
                        os.chmod(path, 0o700)  # noqa: PTH101
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(where: Path, tmp: Path, started: float) -> None:
    """Remove what an earlier life of this worker left: its tasks' folders, and its own user's files in /tmp.

    Args:
        where: The base.
        tmp: The worker's /tmp.
        started: When the container started, in seconds since the epoch.
    """
    for folder in where.glob(f"{prefix()}*"):
        remove(folder)
    for entry in own_entries(tmp):
        if last_change(entry.stat(follow_symlinks=False)) < started:
            remove(Path(entry.path))


def sweep(where: Path, tmp: Path, kept: Collection[str], now: float) -> None:
    """Remove what tasks left in /tmp beside their folders: old, and older than every task that runs now.

    Args:
        where: The base.
        tmp: The worker's /tmp.
        kept: The names of the worker's own files there.
        now: In seconds since the epoch.
    """
    oldest_task = min((begun(folder.name) for folder in where.glob(f"{prefix()}*")), default=now)
    limit = min(now - LEFT_SECONDS, oldest_task)
    for entry in own_entries(tmp):
        if entry.name in kept or entry.name.startswith(OWN_PREFIXES):
            continue
        if all(last_change(status) < limit for status in tree(entry)):
            remove(Path(entry.path))


def begun(name: str) -> float:
    """Return when a task's folder was made, in seconds since the epoch."""
    with suppress(ValueError):
        return float(int(name.removeprefix(prefix()).partition("-")[0], 16))
    return 0.0


def own_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what this user has made in a folder, but for Airflow's settings, the home folder, and sockets."""
    kept = {os.environ.get("AIRFLOW_CONFIG"), os.environ.get("HOME")}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.geteuid() and entry.path not in kept and not stat.S_ISSOCK(status.st_mode):
                    yield entry


def last_change(status: os.stat_result) -> float:
    """Return when a file's content or its place changed."""
    return max(status.st_mtime, status.st_ctime)


def tree(entry: os.DirEntry[str]) -> Iterator[os.stat_result]:
    """Yield the status of a file, or of a folder and all that is in it."""
    with suppress(OSError):
        yield entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry.path) as entries:
                for inner in entries:
                    yield from tree(inner)
