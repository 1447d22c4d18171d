"""The reason of a child process's exit."""

from __future__ import annotations

import signal

import pytest

from airflow_ha.task_process import process_exit


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(process_exit, "CGROUP", tmp_path)
    return tmp_path


def fill(folder, version: int, kills: int, limit: str) -> None:
    if version == 1:
        folder = folder / "memory"
        folder.mkdir()
    events, maximum = {2: ("memory.events", "memory.max"), 1: ("memory.oom_control", "memory.limit_in_bytes")}[version]
    (folder / events).write_text(f"low 0\noom 7\noom_kill {kills}\noom_group_kill 9\n")
    (folder / maximum).write_text(f"{limit}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_kill_at_the_memory_limit_names_the_limit(cgroup, version):
    fill(cgroup, version, kills=3, limit=str(576 * 2**20))
    assert process_exit.oom_kills() == 3
    assert "576 MiB" in process_exit.exit_reason(-signal.SIGKILL, oom_kills_before=2)
    assert "memory limit" in process_exit.exit_reason(-signal.SIGKILL, oom_kills_before=2)
    assert "memory limit" not in process_exit.exit_reason(-signal.SIGKILL, oom_kills_before=3)


@pytest.mark.parametrize(("version", "limit"), [(1, str(2**63 - 4096)), (2, "max")])
def test_missing_memory_limit_is_none(cgroup, version, limit):
    fill(cgroup, version, kills=0, limit=limit)
    assert process_exit.memory_limit() is None


def test_missing_cgroup_counts_no_kill(cgroup):
    assert (process_exit.oom_kills(), process_exit.memory_limit()) == (0, None)


@pytest.mark.parametrize(("code", "part"), [(3, "exit code 3"), (-11, "SIGSEGV"), (None, "without an exit code")])
def test_exit_reason_names_the_code_or_signal(cgroup, code, part):
    assert part in process_exit.exit_reason(code, 0)
