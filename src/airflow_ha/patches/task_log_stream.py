"""A task log is streamed in chunks of bounded size, and its handler is informed that the request is streamed.

Problem: in Airflow 3.3.2, a task log handler cannot distinguish a streamed request from one whose answer is built in
memory. The stream is sent in chunks of `[api] log_stream_buffer_size` lines, whatever their length.
Patch: mark the request's metadata as streamed, and count chunks in characters (the setting is 1 here).
Applies to: `airflow.utils.log.log_reader.TaskLogReader`.
Upstream issue: none found.
Remove when: `test_upstream_sends_pieces_of_any_size` fails, and upstream marks streamed requests for handlers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from airflow.utils.log.log_reader import TaskLogReader

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_CHARACTERS: Final = 64 * 1024
"""Characters; the server compresses a chunk on its event loop, in about a millisecond."""

_read_log_stream: Any = TaskLogReader.read_log_stream


def read_log_stream(self: TaskLogReader, ti: Any, try_number: int | None, metadata: Any) -> Iterator[str]:
    """Yield upstream's stream in chunks of about CHUNK_CHARACTERS."""
    metadata["streamed"] = True
    chunk: list[str] = []
    length = 0
    for line in _read_log_stream(self, ti, try_number, metadata):
        chunk.append(line)
        length += len(line)
        if length >= CHUNK_CHARACTERS:
            yield "".join(chunk)
            chunk, length = [], 0
    yield "".join(chunk)


def apply() -> None:
    """Stream logs in chunks of bounded size; upstream then passes them on line by line."""
    os.environ.setdefault("AIRFLOW__API__LOG_STREAM_BUFFER_SIZE", "1")  # read when the API's routes are created
    TaskLogReader.read_log_stream = read_log_stream
