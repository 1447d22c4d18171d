"""A printed line of any length costs the task's supervisor a megabyte, and is read once.

Problem: `make_buffered_socket_reader` of Airflow 3.3.2 buffers an unfinished line, and searches all of it for a newline
after each 4 KB. A line of 30 MB takes about 10 s of a core, one of 300 MB a quarter of an hour.
Patch: log printed output in lines of MAX_LINE_BYTES, each but the last with a note that the line continues. Cut a log
record after MAX_RECORD_BYTES, with a note of its size.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor.make_buffered_socket_reader`.
Upstream issue: none found.
Remove when: `test_bound_task_output.py` reports that upstream reads a long line in linear time.
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

MAX_LINE_BYTES: Final = 1024 * 1024
MAX_RECORD_BYTES: Final = 8 * 1024 * 1024
CONTINUED: Final = b" [the line goes on]\n"


class PrintedLines:
    """Lines of printed text; long lines are split."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def add(self, part: bytes) -> Iterator[bytes]:
        """Append a part of a line; yield the parts that exceed MAX_LINE_BYTES."""
        self.rest += part
        while len(self.rest) > MAX_LINE_BYTES:
            end = MAX_LINE_BYTES
            while end > MAX_LINE_BYTES - 4 and self.rest[end] & 0xC0 == 0x80:
                end -= 1  # do not split a multi-byte character
            yield bytes(self.rest[:end]) + CONTINUED
            del self.rest[:end]

    def end(self) -> bytes:
        """Return the finished line."""
        line, self.rest = bytes(self.rest) + b"\n", bytearray()
        return line


class Records(PrintedLines):
    """Lines of JSON log records; long records are cut."""

    total = 0

    def add(self, part: bytes) -> Iterator[bytes]:
        """Append a part of a line, up to MAX_RECORD_BYTES."""
        self.rest += part[: MAX_RECORD_BYTES - len(self.rest)]
        self.total += len(part)
        return iter(())

    def end(self) -> bytes:
        """Return the finished line."""
        total, self.total = self.total, 0
        line = super().end()
        return line if total < len(line) else record(long_line.cut(line[:-1], total))


def record(line: bytes) -> bytes:
    """Return a line as the JSON of a log record; the line may already be one."""
    with suppress(ValueError):
        if isinstance(fields := json.loads(line), dict):
            return json.dumps({"level": "info", **fields}).encode()
    return json.dumps({"level": "info", "event": line[:MAX_LINE_BYTES].decode(errors="replace")}).encode()


def make_buffered_socket_reader(
    gen: Generator[None, bytes | bytearray, None],
    *,
    data: bytes = b"",
    on_close: Callable[[socket], None],
    buffer_size: int = 4096,
) -> tuple[Callable[[socket], bool], Callable[[socket], None]]:
    """Return upstream's pair of callbacks, which pass each line that a socket receives to a generator."""
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
    """Read long lines in parts."""
    module: Any = supervisor
    module.make_buffered_socket_reader = make_buffered_socket_reader
