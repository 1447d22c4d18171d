"""The exporter's address, resolved in the background.

A lookup can take seconds (the name of a missing container goes to an external resolver), and a replaced exporter has
another address. So the name is resolved in the background every few seconds. The result is stored in a file for the
next process: a task's process runs for a second and should not resolve the name. All processes of a container together
resolve it once per interval, also after a failure.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKUP_INTERVAL = 5.0
"""Seconds between two lookups: the longest time for which metrics are lost after the exporter's address changes."""

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class Answer(NamedTuple):
    """The result of a lookup."""

    address: SocketAddress | None  # the last known address; None if none was ever known
    at: float  # seconds on the monotonic clock, which all processes of the system share


def shared_directory(purpose: str = "telemetry") -> Path | None:
    """Return a directory that only this user can read or write; None if it cannot be created.

    Its content decides where metrics go, so the owner and the mode of the directory are checked.

    Args:
        purpose: part of the name; each purpose has its own directory.
    """
    # A task has its own TMPDIR, but shares this directory with its worker (task_process/supervised_task.py).
    temporary = os.environ.get("AIRFLOW_HA_WORKER_TMP") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    directory = Path(temporary) / f"airflow-ha-{purpose}-{os.geteuid()}"
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.lstat()
    except OSError:
        return None
    is_private = status.st_uid == os.geteuid() and status.st_mode & 0o170077 == 0o040000
    return directory if is_private else None


class Address:
    """The address of one host and port.

    Attributes:
        current: the destination; None until a lookup succeeds.
        is_lookup_done: whether a lookup, of any process, has ended; until then the caller should queue.
    """

    def __init__(
        self,
        host: str,
        port: int,
        family: socket.AddressFamily,
        *,
        directory: Path | None = None,
        on_lookup_done: Callable[[], None] = lambda: None,
    ) -> None:
        self.current: SocketAddress | None = None
        self.is_lookup_done = False
        self._host, self._port, self._family = host, port, family
        self._on_lookup_done = on_lookup_done
        self._due = 0.0
        self._is_resolving = False
        self._file: Path | None = None
        with suppress(Exception):  # Airflow must start with any configured host
            self.current = self._resolve(socket.AI_NUMERICHOST)
        if self.current:
            self.is_lookup_done, self._due = True, float("inf")
        elif directory:
            self._file = directory / f"{re.sub('[^A-Za-z0-9.-]', '_', host)[:100]}-{port}-{family.value}.json"

    def refresh(self) -> None:
        """Use the stored address, or start a lookup if one is due; never block and never raise."""
        now = time.monotonic()
        if now < self._due or self._is_resolving:
            return
        self._due = now + LOOKUP_INTERVAL
        known = self._read()
        # A time in the future is from before a restart of the machine.
        if known and 0 <= now - known.at < LOOKUP_INTERVAL:
            self.current, self.is_lookup_done = known.address or self.current, True
            self._due = known.at + LOOKUP_INTERVAL
            return
        if known:
            self.current, self.is_lookup_done = known.address or self.current, True
            self._write(Answer(self.current, now))  # claims the lookup; other processes keep the known address
        self._is_resolving = True
        try:
            threading.Thread(target=self._run_lookup, name="statsd-address", daemon=True).start()
        except RuntimeError:  # no thread available, or the interpreter is shutting down
            self._is_resolving = False

    def after_fork(self) -> None:
        """Reset the lookup of the parent, whose thread does not exist in this process."""
        self._is_resolving = False
        if self._due != float("inf"):
            self._due = 0.0

    def _run_lookup(self) -> None:
        # A failed lookup keeps the last address: DNS may be down while the exporter is up.
        with suppress(Exception):
            self.current = self._resolve()
        self._write(Answer(self.current, time.monotonic()))
        self.is_lookup_done = True
        self._due = time.monotonic() + LOOKUP_INTERVAL
        self._is_resolving = False
        self._on_lookup_done()

    def _resolve(self, flags: int = 0) -> SocketAddress:
        # The name is passed as bytes: for a string, Python imports its idna codec in the thread.
        results = socket.getaddrinfo(self._host.encode("ascii"), self._port, self._family, socket.SOCK_DGRAM, 0, flags)
        return results[0][4]  # type: ignore[return-value]

    def _read(self) -> Answer | None:
        if not self._file:
            return None
        try:
            address, at = json.loads(self._file.read_text())
            return Answer((str(address[0]), *map(int, address[1:])) if address else None, float(at))  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def _write(self, answer: Answer) -> None:
        if self._file:
            part = self._file.with_suffix(f".{os.getpid()}")
            with suppress(OSError):
                part.write_text(json.dumps(answer))
                part.replace(self._file)
