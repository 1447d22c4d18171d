"""The handler behind the API's logs: what each request of one reads of a large one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.utils.log.log_reader import TaskLogReader

from airflow_ha.task_logs import handler
from airflow_ha.task_logs.handler import BoundedTaskHandler
from tests.unit.patches.loading import applied

LINES = 200_000


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader of the logs in a folder, in which one of 26 MB is."""
    made = TaskLogReader()
    reading = BoundedTaskHandler(str(tmp_path))
    monkeypatch.setattr(reading, "_render_filename", lambda *_: "attempt=1.log")
    monkeypatch.setattr(reading, "_read_from_logs_server", lambda *_: ([], []))
    made.__dict__["log_handler"] = reading
    (tmp_path / "attempt=1.log").write_text("".join(line(number) for number in range(LINES)))
    with applied("task_log_stream"):
        yield made


def line(number: int) -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "event": str(number), "padding": "y" * 60}) + "\n"


def attempt(state: str = "success") -> SimpleNamespace:
    return SimpleNamespace(try_number=1, state=state)


def test_json_answer_of_a_large_log_is_bounded(reader):
    events, metadata = reader.read_log_chunks(attempt(), 1, {"download_logs": True})
    found = [event.event for event in events]
    assert found[-1] == str(LINES - 1)
    assert "0" in found
    assert len(found) * len(line(LINES)) < handler.JSON_LIMIT * 1.1
    assert metadata["end_of_log"]


def test_stream_of_a_large_log_is_bounded_unless_all_is_asked_for(reader):
    page = "".join(reader.read_log_stream(attempt(), 1, {"download_logs": False}))
    assert len(page) < handler.STREAM_LIMIT * 1.1
    pieces = list(reader.read_log_stream(attempt(), 1, {"download_logs": True}))
    events = [json.loads(text)["event"] for text in "".join(pieces).splitlines()]
    assert [event for event in events if event.isdecimal()] == [str(number) for number in range(LINES)]
    assert max(map(len, pieces)) < 100_000


def test_running_tasks_log_goes_on_with_the_token(reader, tmp_path):
    _, metadata = reader.read_log_chunks(attempt("running"), 1, {})
    assert not metadata["end_of_log"]
    token = json.loads(json.dumps(metadata))
    with (tmp_path / "attempt=1.log").open("a") as file:
        file.write(line(LINES))
    events, metadata = reader.read_log_chunks(attempt("running"), 1, token)
    assert [event.event for event in events] == [str(LINES)]
    assert not list(reader.read_log_chunks(attempt("success"), 1, metadata)[0])


def test_link_out_of_the_log_folder_is_not_followed(reader, tmp_path):
    secret = tmp_path.parent / "secret"
    secret.write_text("secret\n")
    (tmp_path / "attempt=1.log.link").symlink_to(secret)
    events, _ = reader.read_log_chunks(attempt(), 1, {})
    assert "secret" not in {event.event for event in events}


def test_several_logs_of_a_try_are_merged_by_time(reader, tmp_path):
    for name, minutes in (("attempt=1.log", (1, 3)), ("attempt=1.log.trigger.7.log", (2, 4))):
        text = [json.dumps({"timestamp": f"2026-01-01T00:0{one}:00Z", "event": str(one)}) + "\n" for one in minutes]
        (tmp_path / name).write_text("".join(text))
    for whole in (False, True):
        streamed = "".join(reader.read_log_stream(attempt(), 1, {"download_logs": whole}))
        events = [json.loads(text)["event"] for text in streamed.splitlines()]
        assert [event for event in events if event.isdecimal()] == ["1", "2", "3", "4"]


def test_small_log_reads_as_with_upstreams_handler(reader, tmp_path):
    from airflow.utils.log.file_task_handler import FileTaskHandler

    (tmp_path / "attempt=1.log").write_text("plain text\n" + line(1) + line(1) + "\n" + line(2) + "no newline")
    upstreams = FileTaskHandler(str(tmp_path))
    upstreams._render_filename = lambda *_: "attempt=1.log"  # type: ignore[method-assign]
    expected, _ = upstreams._read(attempt(), 1)
    assert list(reader.read_log_chunks(attempt(), 1, {})[0]) == list(expected)


def test_upstream_sends_pieces_of_any_size():
    """When this fails, upstream bounds its pieces: delete task_log_stream, and what loads it."""
    from airflow.api_fastapi.core_api.routes.public import log

    pieces = log._buffered_ndjson_stream(["x" * 100_000] * log._NDJSON_BATCH_SIZE)
    assert max(map(len, pieces)) > 1_000_000
