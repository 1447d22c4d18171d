"""Text of errors that Postgres can store."""

from __future__ import annotations

from airflow_ha.storable_text import MAX_CHARACTERS, storable_text


def test_long_text_keeps_its_start_and_end():
    text = storable_text("begin\n" + "x" * 1_000_000 + "\nend\0\ud800")
    assert len(text) < MAX_CHARACTERS + 100
    assert text.startswith("begin\n")
    assert text.endswith("\nend\\x00\\ud800")
