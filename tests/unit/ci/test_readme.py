"""Generated parts of README.md."""

from __future__ import annotations

import pytest

from ops.ci import readme


def test_only_the_text_between_the_marks_changes():
    begin, end = readme.marks("drills")
    text = f"before\n{begin}old\n{end}after\n"
    assert readme.filled(text, "drills", "new\n") == f"before\n{begin}new\n{end}after\n"


def test_part_without_marks_is_an_error():
    with pytest.raises(ValueError, match="unpack"):
        readme.filled("before\nafter\n", "drills", "new\n")
