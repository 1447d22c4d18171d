"""Where the exporter is: its name looked up without anybody waiting for it.

A look-up can take seconds (a container that does not exist is asked for outside), and an exporter that was replaced
has another address. So a name is looked up in the background, again every few seconds, and what was found is left in
a file for the next process: a task's process lives for a second and should not have to ask. All processes of a
container together look up once an interval, whether it succeeds or not.
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
"""Seconds between two look-ups: as long as metrics go astray at most when the exporter has moved."""

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class Answer(NamedTuple):
    """What a look-up gave."""

    address: SocketAddress | None  # the last that was known; None when there never was one
    at: float  # seconds on the system's monotonic clock, the same for all its processes


def shared_directory(purpose: str = "telemetry") -> Path | None:
    """A directory that only this user can read or write, None when there can be none.

    Whoever writes there says where metrics go, so it is checked, not trusted.

    Args:
        purpose: what it is for; each has its own.
    """
    # A task has a TMPDIR of its own, and shares this directory with its worker (task_process/run.py).
    temporary = os.environ.get("AIRFLOW_HA_WORKER_TMP") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    directory = Path(temporary) / f"airflow-ha-{purpose}-{os.geteuid()}"
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.lstat()
    except OSError:
        return None
    mine = status.st_uid == os.geteuid() and status.st_mode & 0o170077 == 0o040000
    return directory if mine else None


class Address:
    """The address of one host and port, as far as it is known.

    Attributes:
        current: what to send to; None as long as nothing was found.
        searched: whether a look-up, by whichever process, has ended; until then it pays to wait for one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        family: socket.AddressFamily,
        *,
        directory: Path | None = None,
        on_found: Callable[[], None] = lambda: None,
    ) -> None:
        self.current: SocketAddress | None = None
        self.searched = False
        self._host, self._port, self._family = host, port, family
        self._on_found = on_found
        self._due = 0.0
        self._looking_up = False
        self._file: Path | None = None
        with suppress(Exception):  # whatever was configured, Airflow must start
            self.current = self._resolve(socket.AI_NUMERICHOST)
        if self.current:
            self.searched, self._due = True, float("inf")
        elif directory:
            self._file = directory / f"{re.sub('[^A-Za-z0-9.-]', '_', host)[:100]}-{port}-{family.value}.json"

    def refresh(self) -> None:
        """Take what others have found, or start to look, if it is time. Never blocks, never raises."""
        now = time.monotonic()
        if now < self._due or self._looking_up:
            return
        self._due = now + LOOKUP_INTERVAL
        known = self._read()
        # One "in the future" is from before the machine's restart.
        if known and 0 <= now - known.at < LOOKUP_INTERVAL:
            self.current, self.searched, self._due = known.address or self.current, True, known.at + LOOKUP_INTERVAL
            return
        if known:
            self.current, self.searched = known.address or self.current, True
            self._write(Answer(self.current, now))  # now it is ours to look; the others go on with what is known
        self._looking_up = True
        try:
            threading.Thread(target=self._look_up, name="statsd-address", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self._looking_up = False

    def after_fork(self) -> None:
        """Forget the parent's look-up: its thread does not exist in this process."""
        self._looking_up = False
        if self._due != float("inf"):
            self._due = 0.0

    def _look_up(self) -> None:
        # A failed look-up keeps the last address: DNS may be gone while the exporter is not.
        with suppress(Exception):
            self.current = self._resolve()
        self._write(Answer(self.current, time.monotonic()))
        self.searched = True
        self._due = time.monotonic() + LOOKUP_INTERVAL
        self._looking_up = False
        self._on_found()

    def _resolve(self, flags: int = 0) -> SocketAddress:
        # As bytes: for a string Python imports its idna codec, in the thread.
        found = socket.getaddrinfo(self._host.encode("ascii"), self._port, self._family, socket.SOCK_DGRAM, 0, flags)
        return found[0][4]  # type: ignore[return-value]

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
