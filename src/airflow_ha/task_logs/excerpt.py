"""The lines of a log file, or the head and the tail of a file that is too large for one response."""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from airflow_ha.task_logs import long_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE: Final = 64 * 1024
"""The most bytes of a line that are shown."""
TAIL_PARTS: Final = 4
"""An excerpt is one part head and this many parts tail, which holds the errors."""
NEWLINE_SEARCH: Final = 1024 * 1024
"""Bytes before the end of a file in which its last complete line is searched."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a log file.

    Attributes:
        file: the file, already open: its path may lead elsewhere a moment later.
        start: the first byte.
        end: the byte after the last.
        limit: the most bytes to read; None for all.
        log: the log's name in the note about omitted bytes.
    """

    file: IO[bytes]
    start: int
    end: int
    limit: int | None
    log: str

    def lines(self) -> Iterator[str]:
        """Yield the lines, each of at most MAX_LINE bytes, once; a note replaces the omitted ones."""
        with self.file as file:
            if self.limit is None or self.end - self.start <= self.limit:
                yield from read_lines(file, self.start, self.end)
                return
            head = self.limit // (1 + TAIL_PARTS)
            yield from read_lines(file, self.start, self.start + head)
            tail_start = self.end - (self.limit - head)
            head_end = file.seek(0, os.SEEK_CUR)
            if head_end < tail_start:
                yield omission_note(head_end, tail_start, self.end, self.log)
                # The tail begins with its first complete line.
                file.seek(tail_start - 1)
                skip_line(file)
            yield from read_lines(file, file.seek(0, os.SEEK_CUR), self.end)


def omission_note(start: int, end: int, total: int, log: str) -> str:
    """Return the log line that replaces the bytes from start to end of a log."""
    return json.dumps({
        "event": f"[{(end - start) / 1_000_000:,.1f} MB of {total / 1_000_000:,.1f} MB omitted. Full log: "
        f"{log}, or this request with ?full_content=true and 'Accept: application/x-ndjson']",
        "level": "warning",
        "logger": "airflow_ha.task_logs",
    })  # fmt: skip


def skip_line(file: IO[bytes]) -> int:
    """Skip to the end of the line; return the number of skipped bytes."""
    skipped = 0
    while part := file.readline(NEWLINE_SEARCH):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def read_lines(file: IO[bytes], start: int, end: int) -> Iterator[str]:
    """Yield the lines that begin in a range of a file, each cut to MAX_LINE bytes."""
    file.seek(start)
    position = start
    while position < end and (line := file.readline(MAX_LINE)):
        position += len(line)
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            rest = skip_line(file)
            position += rest
            yield long_line.cut(line, len(line) + rest).decode()
        else:
            yield line.decode(errors="replace").rstrip("\n")


def end_of_last_line(file: IO[bytes]) -> int:
    """Return the position after a file's last complete line, where a later request continues."""
    size = file.seek(0, os.SEEK_END)
    searched = max(0, size - NEWLINE_SEARCH)
    file.seek(searched)
    newline = file.read(size - searched).rfind(b"\n")
    return searched + newline + 1 if newline >= 0 else size


def head_and_tail(lines: Iterable[str], limit: int | None) -> Iterator[str]:
    """Yield the lines of a log that is not a local file, or its head and tail if it is larger than the limit."""
    lines = iter(lines)
    tail: deque[str] = deque()
    head = None if limit is None else limit // (1 + TAIL_PARTS)
    head_size = kept = dropped = 0
    for line in lines:
        shown = line
        if len(line) > MAX_LINE:
            shown = long_line.cut(line[:MAX_LINE].encode(), len(line)).decode()
        if head is None or limit is None or head_size < head:
            head_size += len(shown)
            yield shown
            continue
        tail.append(shown)
        kept += len(shown)
        while kept > limit - head:
            oldest = len(tail.popleft())
            kept -= oldest
            dropped += oldest
    if dropped:
        yield omission_note(head_size, head_size + dropped, head_size + dropped + kept, "in the log's storage")
    yield from tail
