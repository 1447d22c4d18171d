"""A child process is never silent for long, and a failed one shows its last words."""

from __future__ import annotations

import sys

import pytest

from ops import child_process
from ops.child_process import ChildFailedError, run_with_progress


def run(script: str, progress=lambda line: line) -> list[str]:
    said: list[str] = []
    run_with_progress([sys.executable, "-c", script], progress, said.append)
    return said


def test_a_failed_command_shows_its_last_lines_and_its_status():
    script = "import sys\nfor i in range(100): print('line', i)\nsys.exit(7)"
    with pytest.raises(ChildFailedError) as failure:
        run(script, lambda _: None)
    assert failure.value.status == 7
    assert failure.value.tail[-1] == "line 99"
    assert "exit 7" in str(failure.value)
    assert "line 50\n" not in str(failure.value)


def test_a_fast_command_is_not_reported_line_by_line():
    assert run("for i in range(1000): print('line', i)") == ["line 0"]


def test_a_silent_command_says_that_it_is_still_at_work(monkeypatch):
    monkeypatch.setattr(child_process, "HEARTBEAT_SECONDS", 0.1)
    # On a busy machine it is silent before its first word too, which must not be left out for that.
    monkeypatch.setattr(child_process, "REPORT_INTERVAL_SECONDS", 0.0)
    script = "import select\nprint('begun', flush=True)\nselect.select([], [], [], 1)"
    said = run(script)
    begun = said.index("begun")
    assert any(line.startswith("begun … ") and line.endswith(" s") for line in said[begun + 1 :])


def test_a_command_whose_output_says_nothing_to_people_is_not_silent_either(monkeypatch):
    monkeypatch.setattr(child_process, "HEARTBEAT_SECONDS", 0.1)
    script = "import select\nfor i in range(20):\n  print('noise', flush=True); select.select([], [], [], 0.05)"
    assert run(script, lambda _: None)
