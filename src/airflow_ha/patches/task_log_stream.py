"""A log that is streamed says so to the handler that reads it, and is sent in pieces of bounded size.

Problem: in Airflow 3.3.2 a task log handler cannot tell a request that is streamed from one whose answer is built in
memory, and the stream is sent in pieces of `[api] log_stream_buffer_size` lines, whatever their length.
Patch: the request's metadata says that it is streamed; pieces are counted in bytes (that setting is 1 here).
Applies to: `airflow.utils.log.log_reader.TaskLogReader`.
Upstream issue: none found.
Remove when: `test_upstream_sends_pieces_of_any_size` fails, and handlers are told.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from airflow.utils.log.log_reader import TaskLogReader

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE: Final = 64 * 1024
"""Characters; the server compresses a piece on its event loop, in about a millisecond."""

_read_log_stream: Any = TaskLogReader.read_log_stream


def read_log_stream(self: TaskLogReader, ti: Any, try_number: int | None, metadata: Any) -> Iterator[str]:
    """As upstream's, in pieces of some PIECE characters."""
    metadata["streamed"] = True
    piece: list[str] = []
    length = 0
    for line in _read_log_stream(self, ti, try_number, metadata):
        piece.append(line)
        length += len(line)
        if length >= PIECE:
            yield "".join(piece)
            piece, length = [], 0
    yield "".join(piece)


def apply() -> None:
    """Stream logs in pieces of bounded size; upstream is to hand them on line by line."""
    os.environ.setdefault("AIRFLOW__API__LOG_STREAM_BUFFER_SIZE", "1")  # read when the API's routes are made
    TaskLogReader.read_log_stream = read_log_stream
