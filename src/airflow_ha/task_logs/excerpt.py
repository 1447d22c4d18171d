"""A log file's lines, or the beginning and the end of a file that is too large for one answer."""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from airflow_ha.task_logs import long_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE: Final = 64 * 1024
"""The bytes of a line that are shown."""
HEAD_SHARE: Final = 4
"""An excerpt is one part beginning, and so many parts end, where errors are."""
NEWLINE_SEARCH: Final = 1024 * 1024
"""How far from its end the last whole line of a file is looked for."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a log file.

    Attributes:
        path: the file.
        start: the first byte.
        end: the byte after the last.
        limit: the bytes that are read at most, None for all.
        log: the log's name for a reader.
    """

    path: Path
    start: int
    end: int
    limit: int | None
    log: str

    def lines(self) -> Iterator[str]:
        """Yield its lines, each of at most MAX_LINE bytes; one of them says what is left out."""
        with self.path.open("rb") as file:
            if self.limit is None or self.end - self.start <= self.limit:
                yield from read_lines(file, self.start, self.end)
                return
            head = self.limit // (1 + HEAD_SHARE)
            yield from read_lines(file, self.start, self.start + head)
            resumed = self.end - (self.limit - head)
            left_from = file.tell()
            if left_from < resumed:
                yield self.left_out(left_from, resumed)
                # From the first whole line there.
                file.seek(resumed - 1)
                skip_line(file)
            yield from read_lines(file, file.tell(), self.end)

    def left_out(self, start: int, end: int) -> str:
        """Return the log line in place of those that are left out."""
        return json.dumps({
            "event": f"[{(end - start) / 1_000_000:,.1f} MB are left out here, of {self.end / 1_000_000:,.1f} MB. The "
            f"whole log: {self.log}, or this request with ?full_content=true and 'Accept: application/x-ndjson']",
            "level": "warning",
            "logger": "airflow_ha.task_logs",
        })  # fmt: skip


def skip_line(file: IO[bytes]) -> int:
    """Read on to the line's end; return the bytes that were skipped."""
    skipped = 0
    while part := file.readline(NEWLINE_SEARCH):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def read_lines(file: IO[bytes], start: int, end: int) -> Iterator[str]:
    """Yield the lines that begin in a range of a file, the longest cut to MAX_LINE bytes."""
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


def end_of_last_line(path: Path) -> int:
    """Return the position after a file's last whole line, where another request may go on."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        searched = max(0, size - NEWLINE_SEARCH)
        file.seek(searched)
        found = file.read(size - searched).rfind(b"\n")
        return searched + found + 1 if found >= 0 else size


def of_lines(lines: Iterable[str], limit: int | None) -> Iterator[str]:
    """Yield the lines of a log that is no local file, or its beginning and its end if it is larger than the limit."""
    lines = iter(lines)
    tail: deque[str] = deque()
    head = None if limit is None else limit // (1 + HEAD_SHARE)
    passed = kept = dropped = 0
    for line in lines:
        shown = line
        if len(line) > MAX_LINE:
            shown = long_line.cut(line[:MAX_LINE].encode(), len(line)).decode()
        if head is None or limit is None or passed < head:
            passed += len(shown)
            yield shown
            continue
        tail.append(shown)
        kept += len(shown)
        while kept > limit - head:
            oldest = len(tail.popleft())
            kept -= oldest
            dropped += oldest
    if dropped:
        yield Excerpt(Path(), 0, passed + dropped + kept, limit, "in the log's storage").left_out(
            passed, passed + dropped
        )
    yield from tail
