"""A task that prints a line of any length costs its supervisor a megabyte, and the time to read it once.

Problem: in Airflow 3.3.2 `airflow.sdk.execution_time.supervisor.make_buffered_socket_reader` keeps an unfinished line
whole, and searches all of it for its end after each 4 KB: 30 MB take some 10 s of a core, 300 MB a quarter of an hour.
Patch: what a task prints is logged in lines of LINE bytes, each but the last with a word that it goes on; a record of
its loggers is cut after RECORD bytes, with a word that says so.
Applies to: Airflow 3.3.2, that function.
Upstream issue: none found.
Remove when: `test_bound_task_output.py` says that upstream reads a long line in time that grows with its length.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.execution_time import supervisor

from airflow_ha.task_logs import long_line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from socket import socket

LINE: Final = 1024 * 1024
RECORD: Final = 8 * 1024 * 1024
GOES_ON: Final = b" [the line goes on]\n"


class PrintedLines:
    """Lines of text, the long ones in several."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def add(self, part: bytes) -> Iterator[bytes]:
        """Take more of a line; yield what has grown too long."""
        self.rest += part
        while len(self.rest) > LINE:
            end = LINE
            while end > LINE - 4 and self.rest[end] & 0xC0 == 0x80:
                end -= 1  # a character of several bytes stays together
            yield bytes(self.rest[:end]) + GOES_ON
            del self.rest[:end]

    def end(self) -> bytes:
        """Return the line whose end has come."""
        line, self.rest = bytes(self.rest) + b"\n", bytearray()
        return line


class Records(PrintedLines):
    """Lines of JSON, the long ones cut."""

    total = 0

    def add(self, part: bytes) -> Iterator[bytes]:
        """Take more of a line, and keep what there is room for."""
        self.rest += part[: RECORD - len(self.rest)]
        self.total += len(part)
        return iter(())

    def end(self) -> bytes:
        """Return the line whose end has come."""
        total, self.total = self.total, 0
        line = super().end()
        return line if total < len(line) else record(long_line.cut(line[:-1], total))


def record(line: bytes) -> bytes:
    """Return a line as the JSON of a log record, which it may be already."""
    with suppress(ValueError):
        if isinstance(found := json.loads(line), dict):
            return json.dumps({"level": "info", **found}).encode()
    return json.dumps({"level": "info", "event": line[:LINE].decode(errors="replace")}).encode()


def make_buffered_socket_reader(
    gen: Generator[None, bytes | bytearray, None],
    *,
    data: bytes = b"",
    on_close: Callable[[socket], None],
    buffer_size: int = 4096,
) -> tuple[Callable[[socket], bool], Callable[[socket], None]]:
    """As upstream's: hand each line that a socket receives to a generator."""
    source = getattr(gen, "__name__", "")
    lines = Records() if source == "process_log_messages_from_subprocess" else PrintedLines()
    received = bytearray(buffer_size)
    next(gen)

    def take(data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        for part in ended:
            for line in lines.add(part):
                gen.send(line)
            gen.send(lines.end())
        for line in lines.add(rest):
            gen.send(line)

    def read(sock: socket) -> bool:
        count = sock.recv_into(received)
        try:
            if not count:
                if lines.rest:
                    gen.send(lines.end())
                return False
            take(bytes(received[:count]))
        except StopIteration:
            return False
        return True

    with suppress(StopIteration):
        take(bytes(data))
    return read, on_close


def apply() -> None:
    """Read long lines in pieces."""
    module: Any = supervisor
    module.make_buffered_socket_reader = make_buffered_socket_reader
