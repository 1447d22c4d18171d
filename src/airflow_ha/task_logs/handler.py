"""Reads task logs for the API; `[logging] logging_config_class` replaces Airflow's own handler with it.

Airflow 3.3.2 reads the full log twice per request, keeps thousands of lines of any length in memory, and copies the log
to /tmp: a log of 327 MB crashed an API server. Here a request reads the head and the tail of a large log, and a
download of the full log is streamed line by line.
"""

from __future__ import annotations

import heapq
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.utils.log import file_task_handler
from airflow.utils.log.file_task_handler import FileTaskHandler, StructuredLogMessage
from airflow.utils.state import State, TaskInstanceState

from airflow_ha.task_logs.excerpt import Excerpt, end_of_last_line, head_and_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM_LIMIT: Final = 4_000_000
"""The most bytes of a log in one response to the UI, which reads lines of JSON."""
JSON_LIMIT: Final = 2_000_000
"""The most bytes of a log in one JSON document, which is in memory several times and needs 2 KB per line."""
STREAMED: Final = "streamed"
"""Key of a request's metadata: the response is lines of JSON (task_log_stream.py in airflow_ha.patches)."""
OFFSETS: Final = "offsets"
"""Key of a request's metadata, and so of its continuation token: where each file's next read starts."""

GOES_ON = (TaskInstanceState.RUNNING, TaskInstanceState.DEFERRED)
BETWEEN_TRIES = (TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE)


class BoundedTaskHandler(FileTaskHandler):  # type: ignore[misc]  # Airflow is untyped here
    """Airflow's task log handler with reads in bounded memory."""

    def _read(self, ti: Any, try_number: int, metadata: Any = None) -> tuple[Any, Any]:
        metadata = metadata or {}
        streamed = metadata.get(STREAMED, False)
        is_download = streamed and metadata.get("download_logs", False)
        limit = None if is_download else STREAM_LIMIT if streamed else JSON_LIMIT
        offsets: dict[str, int] = dict(metadata.get(OFFSETS, {}))
        is_first = OFFSETS not in metadata
        finished = ti.try_number != try_number or ti.state not in GOES_ON

        relative = self._render_filename(ti, try_number)
        sources: list[str] = []
        streams: list[Iterator[str]] = []
        with suppress(NotImplementedError):
            remote_sources, logs = self._read_remote_logs(ti, try_number, metadata)
            sources += remote_sources
            if logs and isinstance(logs[0], str):
                logs = [file_task_handler._get_compatible_log_stream(logs)]
            streams += [head_and_tail(log, limit) for log in logs]
        if not streams or ti.state in State.unfinished:
            paths = self.local_files(Path(self.local_base, relative))
            for path in paths:
                end = path.stat().st_size if finished else end_of_last_line(path)
                share = limit and limit // len(paths)
                name = str(path)
                streams.append(Excerpt(path, offsets.get(name, 0), end, share, f"{name} on the logs' volume").lines())
                offsets[name] = end
                sources.append(name)
        is_over = ti.state not in State.unfinished or ti.state in BETWEEN_TRIES
        if ti.state in GOES_ON or (is_over and not streams):
            served_sources, logs = self._read_from_logs_server(ti, relative)
            sources += served_sources
            streams += [head_and_tail(log, limit) for log in logs]

        events = merged(streams) if is_download else file_task_handler._interleave_logs(*streams)
        if is_first:
            events = with_sources(sources, events)
        return events, {"end_of_log": finished, OFFSETS: offsets}

    def local_files(self, path: Path) -> list[Path]:
        """Return a log's files, the triggerer's included; a link to outside the log folder is ignored."""
        base = Path(self.local_base).resolve()
        files = (file.resolve() for file in sorted(path.parent.glob(path.name + "*")))
        return [file for file in files if file.is_relative_to(base) and os.access(file, os.R_OK)]


def with_sources(sources: list[str], events: Iterator[StructuredLogMessage]) -> Iterator[StructuredLogMessage]:
    """Yield upstream's group with the sources of a log, then the log."""
    yield StructuredLogMessage(event="::group::Log message source details")
    yield from (StructuredLogMessage(event=source) for source in sources)
    yield StructuredLogMessage(event="::endgroup::")
    yield from events


def merged(streams: list[Iterator[str]]) -> Iterator[StructuredLogMessage]:
    """Yield the lines of several logs by time; the order inside a log is kept."""
    parsed = [file_task_handler._log_stream_to_parsed_log_stream(stream) for stream in streams]
    for _, _, event in heapq.merge(*parsed, key=lambda line: file_task_handler._create_sort_key(line[0], line[1])):
        yield event
