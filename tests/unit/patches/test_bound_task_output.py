"""Printed output reaches its log in lines of bounded length, in linear time."""

from __future__ import annotations

import json
import socket
import time

import pytest
from airflow.sdk.execution_time import supervisor

from tests.unit.patches.loading import applied


@pytest.fixture
def patched():
    with applied("bound_task_output"):
        yield


def read_lines(data: bytes, *, records: bool = False) -> list[bytes]:
    """Return the lines that the current reader passes on when a socket receives the data in parts of 4 KB."""
    lines: list[bytes] = []

    def forward_to_log():
        while True:
            lines.append(bytes((yield)))

    def process_log_messages_from_subprocess():
        yield from forward_to_log()

    class Socket(socket.socket):
        position = 0

        def recv_into(self, buffer, *_):
            part = data[self.position : self.position + len(buffer)]
            buffer[: len(part)] = part
            self.position += len(part)
            return len(part)

    gen = process_log_messages_from_subprocess() if records else forward_to_log()
    with Socket() as sock:
        read, _ = supervisor.make_buffered_socket_reader(gen, on_close=lambda _: None)
        while read(sock):
            pass
    return lines


@pytest.mark.parametrize("data", [b"", b"one\n", b"one\ntwo\n\nthree", b"x" * 9000 + b"\n" + b"y" * 4096 + b"\nz"])
@pytest.mark.parametrize("records", [False, True])
def test_short_lines_are_passed_on_as_upstream(request, data, records):
    upstream = [line.rstrip(b"\n") for line in read_lines(data, records=records)]
    request.getfixturevalue("patched")
    assert [line.rstrip(b"\n") for line in read_lines(data, records=records)] == upstream


@pytest.mark.usefixtures("patched")
def test_long_line_is_split_without_loss():
    text = ("é" * 2_000_001).encode()
    lines = read_lines(text + b"\nafter\n")
    assert lines[-1] == b"after\n"
    assert len(lines) == 5
    for line in lines:
        assert len(line) < 1_100_000
        line.decode()
    assert b"".join(line.replace(b" [the line goes on]\n", b"").rstrip(b"\n") for line in lines[:-1]) == text


@pytest.mark.usefixtures("patched")
def test_long_record_is_cut_and_states_its_size():
    text = json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "error", "event": "z" * 9_000_000, "more": 1})
    line, after = read_lines(text.encode() + b'\n{"event": "after"}\n', records=True)
    record = json.loads(line)
    assert (record["level"], record["timestamp"]) == ("error", "2026-01-01T00:00:00Z")
    assert f"{len(text):,}" in record["event"][-60:]
    assert json.loads(after) == {"event": "after"}


def test_long_line_is_read_in_linear_time(request):
    def seconds(size: int) -> float:
        started = time.process_time()
        read_lines(b"z" * size)
        return time.process_time() - started

    growth = seconds(8_000_000) / max(seconds(2_000_000), 1e-3)
    assert growth > 6, "upstream reads a long line in linear time: delete bound_task_output and this file"
    request.getfixturevalue("patched")
    assert seconds(30_000_000) < 3
