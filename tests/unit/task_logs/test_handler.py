"""The API's log handler reads a bounded part of a large log per request."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.utils.log import file_task_handler
from airflow.utils.log.log_reader import TaskLogReader

from airflow_ha.task_logs import handler
from airflow_ha.task_logs.handler import BoundedTaskHandler
from tests.unit.exchange import exchanging
from tests.unit.patches.loading import applied

LINES = 200_000


@pytest.fixture(scope="module")
def large_log():
    """The text of a log of 26 MB."""
    return "".join(line(number) for number in range(LINES))


@pytest.fixture
def reader(tmp_path, monkeypatch, large_log):
    """A log reader on a folder with one large log."""
    reader = TaskLogReader()
    bounded = BoundedTaskHandler(str(tmp_path))
    monkeypatch.setattr(bounded, "_render_filename", lambda *_: "task.log")
    reader.__dict__["log_handler"] = bounded
    (tmp_path / "task.log").write_text(large_log)
    with applied("task_log_stream"):
        yield reader


def line(number: int) -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "event": str(number), "padding": "y" * 60}) + "\n"


def task_instance(state: str = "success") -> SimpleNamespace:
    return SimpleNamespace(try_number=1, state=state)


def test_json_response_of_a_large_log_is_bounded(reader):
    events, metadata = reader.read_log_chunks(task_instance(), 1, {"download_logs": True})
    shown = [event.event for event in events]
    assert shown[-1] == str(LINES - 1)
    assert "0" in shown
    assert len(shown) * len(line(LINES)) < handler.JSON_LIMIT * 1.1
    assert metadata["end_of_log"]


def test_stream_of_a_large_log_is_bounded_except_for_downloads(reader):
    page = "".join(reader.read_log_stream(task_instance(), 1, {"download_logs": False}))
    assert len(page) < handler.STREAM_LIMIT * 1.1
    pieces = list(reader.read_log_stream(task_instance(), 1, {"download_logs": True}))
    events = [json.loads(text)["event"] for text in "".join(pieces).splitlines()]
    assert [event for event in events if event.isdecimal()] == [str(number) for number in range(LINES)]
    assert max(map(len, pieces)) < 100_000


def test_log_of_a_running_task_continues_with_the_token(reader, tmp_path):
    _, metadata = reader.read_log_chunks(task_instance("running"), 1, {})
    assert not metadata["end_of_log"]
    token = json.loads(json.dumps(metadata))
    with (tmp_path / "task.log").open("a") as file:
        file.write(line(LINES))
    events, metadata = reader.read_log_chunks(task_instance("running"), 1, token)
    assert [event.event for event in events] == [str(LINES)]
    assert not list(reader.read_log_chunks(task_instance("success"), 1, metadata)[0])


def events_of(reader, state: str = "success") -> set[str]:
    return {event.event for event in reader.read_log_chunks(task_instance(state), 1, {})[0]}


@pytest.mark.parametrize("target", ["../secret", "other.log"])
def test_link_in_the_log_folder_is_not_followed(reader, tmp_path, target):
    (tmp_path.parent / "secret").write_text("secret\n")
    (tmp_path / "other.log").write_text("secret\n")
    (tmp_path / "task.log").unlink()
    (tmp_path / "task.log.link").symlink_to(target)
    assert "secret" not in events_of(reader)


@pytest.mark.parametrize("attack", ["link through a folder", "folder"])
def test_link_that_is_swapped_in_never_shows_a_secret(reader, tmp_path, monkeypatch, attack):
    """A task exchanges a folder and a link without a pause, while the server reads."""
    outside, folder, link = tmp_path.parent / f"outside {attack}", tmp_path / "folder", tmp_path / "link"
    for place, content in ((outside, "secret\n"), (folder, "a line\n")):
        place.mkdir()
        (place / "task.log").write_text(content)
    link.symlink_to(outside)
    if attack == "folder":
        monkeypatch.setattr(reader.log_handler, "_render_filename", lambda *_: "folder/task.log")
    else:
        (tmp_path / "task.log").unlink()
        (tmp_path / "task.log").symlink_to("folder/task.log")
    shown: set[str] = set()
    with exchanging(folder, link):
        for _ in range(500):
            shown |= events_of(reader)
    assert "secret" not in shown
    assert ("a line" in shown) == (attack == "folder")


def test_log_that_is_a_pipe_blocks_no_server(reader, tmp_path):
    (tmp_path / "task.log").unlink()
    os.mkfifo(tmp_path / "task.log")
    assert any("There is no log task.log" in event for event in events_of(reader))


def test_many_files_of_a_log_leave_descriptors_for_others(reader, tmp_path):
    for number in range(300):
        (tmp_path / f"task.log.{number}").write_text(f"line {number}\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    events, _ = reader.read_log_chunks(task_instance(), 1, {})
    assert len(list(Path("/proc/self/fd").iterdir())) - before == handler.MAX_FILES
    assert "line 0" in {event.event for event in events}
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_log_is_fetched_from_the_host_of_the_task(reader, tmp_path, monkeypatch):
    """A task chooses that host, and its answer 404 makes Airflow read local files without our check."""
    fetched = []
    monkeypatch.setattr(file_task_handler, "_fetch_logs_from_service", lambda *request: fetched.append(request))
    (tmp_path / "task.log").unlink()
    for state in ("running", "success", "failed", "up_for_retry"):
        ti = task_instance(state)
        ti.hostname, ti.triggerer_job = "127.0.0.1", None
        list(reader.read_log_chunks(ti, 1, {})[0])
    assert fetched == []


def test_logs_of_one_try_are_merged_by_time(reader, tmp_path):
    for name, minutes in (("task.log", (1, 3)), ("task.log.trigger.7.log", (2, 4))):
        text = [json.dumps({"timestamp": f"2026-01-01T00:0{at}:00Z", "event": str(at)}) + "\n" for at in minutes]
        (tmp_path / name).write_text("".join(text))
    for is_download in (False, True):
        streamed = "".join(reader.read_log_stream(task_instance(), 1, {"download_logs": is_download}))
        events = [json.loads(text)["event"] for text in streamed.splitlines()]
        assert [event for event in events if event.isdecimal()] == ["1", "2", "3", "4"]


def test_small_log_equals_that_of_upstreams_handler(reader, tmp_path):
    from airflow.utils.log.file_task_handler import FileTaskHandler

    (tmp_path / "task.log").write_text("plain text\n" + line(1) + line(1) + "\n" + line(2) + "no newline")
    upstreams = FileTaskHandler(str(tmp_path))
    upstreams._render_filename = lambda *_: "task.log"  # type: ignore[method-assign]
    expected, _ = upstreams._read(task_instance(), 1)
    assert list(reader.read_log_chunks(task_instance(), 1, {})[0]) == list(expected)


def test_upstream_sends_pieces_of_any_size():
    """If this fails, upstream limits its pieces: delete task_log_stream and its loading."""
    from airflow.api_fastapi.core_api.routes.public import log

    pieces = log._buffered_ndjson_stream(["x" * 100_000] * log._NDJSON_BATCH_SIZE)
    assert max(map(len, pieces)) > 1_000_000
