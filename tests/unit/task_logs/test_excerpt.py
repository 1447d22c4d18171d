"""A log of any size is read in bounded memory: its head and its tail, or all of it line by line."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from airflow_ha.task_logs import long_line
from airflow_ha.task_logs.excerpt import MAX_LINE, Excerpt, end_of_last_line, head_and_tail


def line(number: int, text: str = "y" * 90) -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": f"{number} {text}"})


def excerpt(path, limit, start=0) -> list[str]:
    return list(Excerpt(path.open("rb"), start, path.stat().st_size, limit, str(path)).lines())


def position(path) -> int:
    with path.open("rb") as file:
        return end_of_last_line(file)


def numbers(lines: list[str]) -> list[int | None]:
    """Return the number of each line; None for the note about omitted lines."""
    events = [json.loads(text)["event"].split()[0] for text in lines]
    return [int(event) if event.isdecimal() else None for event in events]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "task.log"
    path.write_text("".join(line(number) + "\n" for number in range(10_000)))
    return path


@pytest.mark.parametrize("limit", [None, 10_000_000])
def test_log_within_the_limit_is_read_completely(log, limit):
    assert numbers(excerpt(log, limit)) == list(range(10_000))


def test_large_log_is_read_as_head_and_tail(log):
    lines = excerpt(log, 100_000)
    shown = numbers(lines)
    gap = shown.index(None)
    assert shown[:gap] == list(range(gap))
    assert shown[gap + 1 :] == list(range(10_000 - len(shown) + gap + 1, 10_000))
    assert 1 < gap < len(shown) / 4
    assert 90_000 < sum(map(len, lines)) < 105_000
    note = json.loads(lines[gap])["event"]
    for part in (str(log), "full_content=true", "application/x-ndjson"):
        assert part in note


def test_next_read_starts_at_the_end_of_the_last(log):
    end = position(log)
    with log.open("a") as file:
        file.write(line(10_000) + "\n" + line(10_001)[:50])
    assert position(log) == log.stat().st_size - 50
    lines = list(Excerpt(log.open("rb"), end, position(log), 100_000, "").lines())
    assert numbers(lines) == [10_000]


@pytest.mark.parametrize("limit", [None, 100_000])
def test_line_of_30_mb_is_cut_in_little_memory(tmp_path, limit):
    path = tmp_path / "task.log"
    long = line(1, "z" * 30_000_000)
    path.write_text(f"{line(0)}\n{long}\n{line(2)}\n")
    tracemalloc.start()
    lines = excerpt(path, limit)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert numbers(lines)[:2] == [0, 1]
    assert numbers(lines)[-1] == 2
    cut = json.loads(lines[1])
    assert cut["level"] == "info"
    assert f"{len(long) + 1:,}" in cut["event"][-60:]
    assert len(lines[1]) < MAX_LINE + 100


@pytest.mark.parametrize(
    "text", ["é" * 50_000, "\\" * 50_000, '"' * 50_000, "\n" * 50_000, "\U0001f600" * 50_000, "a" * 50_000]
)
@pytest.mark.parametrize("at", range(1000, 1013))
def test_cut_line_is_json_for_every_cut_position(text, at):
    full = line(7, text).encode()
    record = json.loads(long_line.cut(full[:at], len(full)))
    assert record["event"].startswith("7 ")
    assert record["event"].endswith(f"{len(full):,} bytes]")


@pytest.mark.parametrize("head", [b"plain text", b"\xff\xfe\x00", b'{"a": {"b": "c', b'["a', b""])
def test_line_that_is_not_a_flat_record_is_cut_as_text(head):
    assert long_line.cut(head, 1_000_000).endswith(b"1,000,000 bytes]")


def test_large_remote_log_is_read_as_head_and_tail():
    lines = list(head_and_tail((line(number) for number in range(10_000)), 100_000))
    assert numbers(lines)[:3] == [0, 1, 2]
    assert numbers(lines)[-1] == 9_999
    assert numbers(lines).count(None) == 1
    assert sum(map(len, lines)) < 105_000
    assert numbers(list(head_and_tail((line(number) for number in range(10_000)), None))) == list(range(10_000))
