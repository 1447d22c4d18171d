"""Reads task logs for the API; `[logging] logging_config_class` replaces Airflow's own handler with it.

Airflow 3.3.2 reads the full log twice per request, keeps thousands of lines of any length in memory, and copies the log
to /tmp: a log of 327 MB crashed an API server. Here a request reads the head and the tail of a large log, and a
download of the full log is streamed line by line.

Workers write to the logs' folder. Airflow checks a path and then opens it, so a link that is swapped in between led to
the API server's own secrets. Here no link is followed. Airflow also fetches logs from the host that the task instance
names, which may be a task's own server. This stack has no log servers, so nothing is fetched.
"""

from __future__ import annotations

import heapq
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from airflow.utils.log import file_task_handler
from airflow.utils.log.file_task_handler import FileTaskHandler, StructuredLogMessage
from airflow.utils.state import State, TaskInstanceState

from airflow_ha import beneath
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

MAX_FILES: Final = 100
"""The most files of one log that are open at once: the task's, and one of each triggerer that ran its trigger."""

GOES_ON = (TaskInstanceState.RUNNING, TaskInstanceState.DEFERRED)


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
            files = self.local_files(relative)
            for name, file in files:
                end = file.seek(0, os.SEEK_END) if finished else end_of_last_line(file)
                share = limit and limit // len(files)
                streams.append(Excerpt(file, offsets.get(name, 0), end, share, f"{name} on the logs' volume").lines())
                offsets[name] = end
                sources.append(name)
        if not sources:
            sources.append(f"There is no log {relative}: it is not written yet, or was deleted")

        events = merged(streams) if is_download else file_task_handler._interleave_logs(*streams)
        if is_first:
            events = with_sources(sources, events)
        return events, {"end_of_log": finished, OFFSETS: offsets}

    def local_files(self, relative: str) -> list[tuple[str, IO[bytes]]]:
        """Open a log's files, the triggerer's included; links are ignored.

        Args:
            relative: the log's path below the log folder.

        Returns:
            The path and the open file of each.
        """
        folder, name = os.path.split(relative)
        files: list[tuple[str, IO[bytes]]] = []
        with suppress(OSError), beneath.open_folder(Path(self.local_base), folder) as descriptor:
            entries = sorted(entry for entry in os.listdir(descriptor) if entry.startswith(name))  # noqa: PTH208
            for entry in entries[:MAX_FILES]:
                with suppress(OSError):
                    file = beneath.open_file_in(descriptor, entry)
                    files.append((str(Path(self.local_base, folder, entry)), file))
        return files


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
