"""What was measured gets into the README, and nothing else of it changes."""

from __future__ import annotations

import pytest

from ops.ci import readme


def test_only_what_is_between_the_marks_changes():
    begin, end = readme.marks("drills")
    text = f"before\n{begin}old\n{end}after\n"
    assert readme.filled(text, "drills", "new\n") == f"before\n{begin}new\n{end}after\n"
    with pytest.raises(ValueError, match="unpack"):
        readme.filled(text, "benches", "new")
