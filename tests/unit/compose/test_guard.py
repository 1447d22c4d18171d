"""compose/health/guard.sh: what Docker is told, and when the main process is ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.compose.model import COMPOSE

GUARD = COMPOSE / "health" / "guard.sh"


@pytest.fixture
def guard(tmp_path: Path):
    """Runs guard.sh once in a container of paper: its files are under tmp_path, and `kill` and `stat` are recorded."""
    script = (
        GUARD.read_text()
        .replace("/tmp/guard-failures", str(tmp_path / "failures"))
        .replace("/proc/1/task/1/children", str(tmp_path / "children"))
    )
    (tmp_path / "children").write_text("7 ")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name, body in {"stat": "echo ${STARTED}", "date": "echo 1000"}.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{body}\n")
        (stand_ins / name).chmod(0o755)
    # `kill` is built into the shell: a function goes before it.
    recording = f'kill() {{ echo "$@" >>{tmp_path}/kills; }}\n'

    def run(probe_exit: int, *, age: int = 1000, limit: int = 3) -> tuple[int, list[str]]:
        (tmp_path / "kills").unlink(missing_ok=True)
        result = subprocess.run(
            ["sh", "-c", recording + script, "guard.sh", str(limit), "sh", "-c", f"exit {probe_exit}"],
            env={"PATH": f"{stand_ins}:{os.environ['PATH']}", "STARTED": str(1000 - age)},
            capture_output=True,
            text=True,
            check=False,
        )
        kills = tmp_path / "kills"
        return result.returncode, kills.read_text().splitlines() if kills.exists() else []

    return run


def test_a_probe_that_succeeds_is_healthy(guard):
    assert guard(0) == (0, [])


def test_below_the_limit_it_is_unhealthy_and_nothing_is_ended(guard):
    assert [guard(1), guard(1)] == [(1, []), (1, [])]


def test_at_the_limit_the_main_process_is_asked_to_end_and_at_twice_the_limit_made_to(guard):
    kills = [guard(1)[1] for _ in range(6)]
    assert kills == [[], [], ["-s TERM 7"], ["-s TERM 7"], ["-s TERM 7"], ["-s KILL 7"]]


def test_one_success_starts_the_count_anew(guard):
    outcomes = [guard(code) for code in (1, 1, 0, 1, 1)]
    assert [kills for _, kills in outcomes] == [[]] * 5


def test_a_dependency_that_is_away_is_unhealthy_but_never_a_reason_to_restart(guard):
    assert [guard(os.EX_TEMPFAIL) for _ in range(10)] == [(1, [])] * 10


def test_a_container_that_is_still_starting_is_not_ended(guard):
    assert [guard(1, age=119) for _ in range(10)] == [(1, [])] * 10
