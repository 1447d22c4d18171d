"""The connections of this process to servers that have replicas, and the thread that shuts those to a former primary.

Patches report the connections that are theirs to watch, each with the name of its node, as it was asked for, and with
who knows the primary's name. Names are compared, not addresses: a node may have several, of both kinds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

OVERDUE_SECONDS: float = 4.0
"""An answer that takes longer is worth a question who is the primary; most take milliseconds."""
CHECK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.0
"""For each of those that are asked who is the primary."""
ESTABLISHED: Final = 1
"""TCP_ESTABLISHED of the kernel; a connection that was shut and that its owner still holds is another."""


class Key(NamedTuple):
    """What tells a connection from every other.

    Attributes:
        descriptor: The file descriptor.
        file: The device and the number of its socket: another file may get its descriptor.
    """

    descriptor: int
    file: tuple[int, int]


class Watched(NamedTuple):
    """A connection.

    Attributes:
        node: The node's name.
        find_primary: Returns the name of the primary; None while there is none, or nobody answers.
    """

    node: str
    find_primary: Callable[[], str | None]


_watched: Final[dict[Key, Watched]] = {}


def watch(descriptor: int, node: str, find_primary: Callable[[], str | None]) -> None:
    """Have a connection of this process shut when its answer is overdue and another node is the primary."""
    _watched[Key(descriptor, file_of(descriptor))] = Watched(node, find_primary)


def file_of(descriptor: int) -> tuple[int, int]:
    """Return what tells the file of a descriptor from every other that is open."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def copy_of(descriptor: int, file: tuple[int, int]) -> socket.socket | None:
    """Return a copy of a connection, which its owner may close at any time; None if it is closed."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    if file_of(copy) == file:
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def is_overdue(connection: socket.socket) -> bool:
    """Return whether the last that went over a connection was a question, and long ago.

    Sent and received in the same tick of the kernel's clock counts too: which came first cannot be told.
    """
    tcp_info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # tcpi_state, tcpi_last_data_sent and tcpi_last_data_recv of linux/tcp.h; the latter two in milliseconds ago.
    state, sent, _, received = struct.unpack_from("=B43xIII", tcp_info)
    return bool(state == ESTABLISHED and sent <= received and sent > OVERDUE_SECONDS * 1000)


def shut_stale() -> int:
    """Shut each overdue connection to a node that is not the primary, and return how many."""
    shut = 0
    primaries: dict[Callable[[], str | None], str | None] = {}
    for key, (node, find_primary) in _watched.copy().items():
        connection = copy_of(*key)
        if connection is None:
            _watched.pop(key, None)
            continue
        with connection:
            try:
                if not is_overdue(connection):
                    continue
            except OSError:  # not TCP: a server on this machine has no replicas
                continue
            if find_primary not in primaries:
                primaries[find_primary] = find_primary()
            primary = primaries[find_primary]
            if primary is not None and primary != node:
                log.warning("no answer from %s, and %s is the primary: its connection is shut", node, primary)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                shut += 1
    return shut


class Watcher(threading.Thread):
    """Shuts stale connections until `end`."""

    def __init__(self) -> None:
        super().__init__(name="stale-connections", daemon=True)
        self.process = os.getpid()
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Check once a CHECK_SECONDS."""
        while not self._ended.wait(CHECK_SECONDS):
            try:
                shut_stale()
            except Exception:
                log.exception("cannot check for connections to a former primary; hint: it is tried again")

    def end(self) -> None:
        """Return once the thread has ended."""
        self._ended.set()
        self.join()


_watcher: Watcher | None = None


def started() -> Watcher | None:
    """Return a new thread; None in a process that may have no more: its queries are worth more than their limit."""
    try:
        return Watcher()
    except RuntimeError as error:
        log.warning("cannot watch for connections to a former primary: %s", error)
        return None


def is_always_watched() -> bool:
    """Return whether this process has a thread for as long as it lives."""
    return _watcher is not None and _watcher.process == os.getpid()


def watch_always() -> None:
    """Start this process's thread, once."""
    global _watcher
    if not is_always_watched():
        _watcher = started()


def watch_in_fork() -> None:
    """Start the thread in a process that was forked, if it has inherited connections."""
    if _watched:
        watch_always()
