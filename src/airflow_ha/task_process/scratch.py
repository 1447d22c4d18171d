"""The scratch folder of each task, and the cleanup of a worker's /tmp.

Each task has its own folder as working directory and TMPDIR; it is removed after the task. Other files that a task
leaves under /tmp are removed when they are a day old, or when the worker starts.
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
"""The age at which a file is removed that no running task can have written."""
OWN_PREFIXES: Final = ("task-", "airflow-ha-")
"""The sweep skips these: task folders, and files that the worker shares with tasks (telemetry/exporter_address.py)."""
SWEEP_SECONDS: Final = 3600.0
"""Time between two sweeps by one process of the pool."""


def base() -> Path:
    """Return the parent of the task folders."""
    return Path(os.environ.get("AIRFLOW_HA_SCRATCH") or TMP)


def prefix() -> str:
    """Return the prefix of this worker's folders; other workers may share the base."""
    return f"task-{zlib.crc32(gethostname().encode()):08x}-"


def create(where: Path, home: Path) -> Path:
    """Create a task's folder.

    Its name contains the time of creation and is short, because the path of a socket has at most 107 characters. It
    links to the files of AIRFLOW_HOME, where stock Airflow runs tasks, so relative paths keep working.

    Args:
        where: The base.
        home: AIRFLOW_HOME.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix()}{int(time.time()):x}-", dir=where))
    with suppress(OSError), os.scandir(home) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry.path)
    return folder


def remove(folder: Path) -> None:
    """Remove an unused folder or file, even if its folders are read-only."""
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
    """Remove the files of this worker's previous run: task folders, and its user's files in /tmp.

    Args:
        where: The base.
        tmp: The worker's /tmp.
        started: The container's start, in seconds since the epoch.
    """
    for folder in where.glob(f"{prefix()}*"):
        remove(folder)
    for entry in own_entries(tmp):
        if last_change(entry.stat(follow_symlinks=False)) < started:
            remove(Path(entry.path))


def sweep(where: Path, tmp: Path, kept: Collection[str], now: float) -> None:
    """Remove files that tasks left in /tmp outside their folders and that are old and older than any running task.

    Args:
        where: The base.
        tmp: The worker's /tmp.
        kept: The names of the worker's own files in /tmp.
        now: In seconds since the epoch.
    """
    oldest_task = min((created_at(folder.name) for folder in where.glob(f"{prefix()}*")), default=now)
    limit = min(now - LEFT_SECONDS, oldest_task)
    for entry in own_entries(tmp):
        if entry.name in kept or entry.name.startswith(OWN_PREFIXES):
            continue
        if all(last_change(status) < limit for status in tree(entry)):
            remove(Path(entry.path))


def created_at(name: str) -> float:
    """Return the creation time of a task's folder from its name, in seconds since the epoch; 0 if it has none."""
    with suppress(ValueError):
        return float(int(name.removeprefix(prefix()).partition("-")[0], 16))
    return 0.0


def own_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield this user's files in a folder, except Airflow's configuration, the home folder and sockets."""
    kept = {os.environ.get("AIRFLOW_CONFIG"), os.environ.get("HOME")}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.geteuid() and entry.path not in kept and not stat.S_ISSOCK(status.st_mode):
                    yield entry


def last_change(status: os.stat_result) -> float:
    """Return the time of the last change of a file's content or metadata."""
    return max(status.st_mtime, status.st_ctime)


def tree(entry: os.DirEntry[str]) -> Iterator[os.stat_result]:
    """Yield the status of a file, or of a folder and its content."""
    with suppress(OSError):
        yield entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry.path) as entries:
                for inner in entries:
                    yield from tree(inner)
