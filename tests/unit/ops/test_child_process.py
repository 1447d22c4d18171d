"""A child process is reported at least every 10 s, and a failed one with its last lines."""

from __future__ import annotations

import sys

import pytest

from ops import child_process
from ops.child_process import ChildFailedError, run_limited, run_with_progress
from ops.errors import StackError


def run(script: str, progress=lambda line: line) -> list[str]:
    lines: list[str] = []
    run_with_progress([sys.executable, "-c", script], progress, lines.append)
    return lines


def test_a_failed_command_shows_its_last_lines_and_status():
    script = "import sys\nfor i in range(100): print('line', i)\nsys.exit(7)"
    with pytest.raises(ChildFailedError) as failure:
        run(script, lambda _: None)
    assert failure.value.status == 7
    assert failure.value.tail[-1] == "line 99"
    assert "exit 7" in str(failure.value)
    assert "line 50\n" not in str(failure.value)


def test_a_fast_commands_output_is_one_report():
    assert run("for i in range(1000): print('line', i)") == ["line 0"]


def test_a_silent_command_is_reported_as_running(monkeypatch):
    monkeypatch.setattr(child_process, "HEARTBEAT_SECONDS", 0.1)
    # On a busy machine the silence before the first line is reported too.
    monkeypatch.setattr(child_process, "REPORT_INTERVAL_SECONDS", 0.0)
    script = "import select\nprint('started', flush=True)\nselect.select([], [], [], 1)"
    lines = run(script)
    started = lines.index("started")
    assert any(line.startswith("started … ") and line.endswith(" s") for line in lines[started + 1 :])


def test_a_command_without_useful_output_is_reported_too(monkeypatch):
    monkeypatch.setattr(child_process, "HEARTBEAT_SECONDS", 0.1)
    script = "import select\nfor i in range(20):\n  print('noise', flush=True); select.select([], [], [], 0.05)"
    assert run(script, lambda _: None)


def test_the_last_step_is_reported_once_the_interval_is_over(monkeypatch):
    monkeypatch.setattr(child_process, "REPORT_INTERVAL_SECONDS", 0.5)
    script = (
        "import select\nprint('first', flush=True); print('second', flush=True)\n"
        "for i in range(20): print('noise', flush=True); select.select([], [], [], 0.05)"
    )
    assert run(script, lambda line: None if line == "noise" else line)[:2] == ["first", "second"]


def test_a_command_that_hangs_is_killed_at_its_limit():
    with pytest.raises(StackError, match=r"cannot wait for input: no answer in 0 s") as error:
        run_limited([sys.executable, "-c", "import signal\nsignal.pause()"], 0.2, "wait for input")
    assert error.value.hint
