"""Connections of this process to servers with replicas, and the thread that shuts those to a former primary.

Patches register each connection with its node name and a function that returns the current primary's name. Names are
compared, not addresses: a node may have several IPv4 and IPv6 addresses.
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
"""Seconds without an answer after which the primary is queried; most answers take milliseconds."""
CHECK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.0
"""Timeout of each query for the primary."""
ESTABLISHED: Final = 1
"""The kernel's TCP_ESTABLISHED: a connection that was shut but that its owner still holds has another state."""


class Key(NamedTuple):
    """The identity of a connection.

    Attributes:
        descriptor: The file descriptor.
        file: Device and inode of its socket, because the kernel reuses descriptors.
    """

    descriptor: int
    file: tuple[int, int]


class Watched(NamedTuple):
    """A watched connection.

    Attributes:
        node: Name of the node.
        find_primary: Returns the name of the primary; None if there is none, or if no server answers.
    """

    node: str
    find_primary: Callable[[], str | None]


_watched: Final[dict[Key, Watched]] = {}


def watch(descriptor: int, node: str, find_primary: Callable[[], str | None]) -> None:
    """Register a connection to be shut when its answer is overdue and another node is the primary."""
    _watched[Key(descriptor, file_of(descriptor))] = Watched(node, find_primary)


def file_of(descriptor: int) -> tuple[int, int]:
    """Return the device and inode of a descriptor's file, which identify it among open files."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def copy_of(descriptor: int, file: tuple[int, int]) -> socket.socket | None:
    """Return a duplicate of a connection that its owner may close at any time; None if it is closed."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    if file_of(copy) == file:
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def is_overdue(connection: socket.socket) -> bool:
    """Return whether the last data on a connection was a request, sent more than OVERDUE_SECONDS ago.

    If data was sent and received in the same tick of the kernel's clock, the order is unknown and counts as a request.
    """
    tcp_info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # linux/tcp.h: tcpi_state, tcpi_last_data_sent and tcpi_last_data_recv; the latter two are ages in milliseconds.
    state, sent, _, received = struct.unpack_from("=B43xIII", tcp_info)
    return bool(state == ESTABLISHED and sent <= received and sent > OVERDUE_SECONDS * 1000)


def shut_stale() -> int:
    """Shut each overdue connection to a node that is not the primary; return the number of shut connections."""
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
            except OSError:  # a Unix socket: a local server has no replicas
                continue
            if find_primary not in primaries:
                primaries[find_primary] = find_primary()
            primary = primaries[find_primary]
            if primary is not None and primary != node:
                log.warning("no answer from %s, and %s is the primary: connection shut", node, primary)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                shut += 1
    return shut


class Watcher(threading.Thread):
    """The thread that shuts stale connections until `stop` is called."""

    def __init__(self) -> None:
        super().__init__(name="stale-connections", daemon=True)
        self.process = os.getpid()
        self._stop_requested = threading.Event()
        self.start()

    def run(self) -> None:
        """Check every CHECK_SECONDS."""
        while not self._stop_requested.wait(CHECK_SECONDS):
            try:
                shut_stale()
            except Exception:
                log.exception("cannot check for connections to a former primary; retrying")

    def stop(self) -> None:
        """Stop the thread and wait until it has ended."""
        self._stop_requested.set()
        self.join()


_watcher: Watcher | None = None


def start_watcher() -> Watcher | None:
    """Return a new thread, or None at the process limit: queries without a watcher are better than none."""
    try:
        return Watcher()
    except RuntimeError as error:
        log.warning("cannot watch for connections to a former primary: %s", error)
        return None


def has_permanent_watcher() -> bool:
    """Return whether this process has a thread for its whole lifetime."""
    return _watcher is not None and _watcher.process == os.getpid()


def start_permanent_watcher() -> None:
    """Start the permanent thread of this process, once."""
    global _watcher
    if not has_permanent_watcher():
        _watcher = start_watcher()


def start_watcher_in_fork() -> None:
    """Start the permanent thread in a forked process that inherited connections."""
    if _watched:
        start_permanent_watcher()
