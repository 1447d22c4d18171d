"""The reason of a child process's exit."""

from __future__ import annotations

import signal

import pytest

from airflow_ha.sizes import MIB
from airflow_ha.task_process import container_memory, process_exit


@pytest.fixture(autouse=True)
def container(monkeypatch):
    """A container with a limit of 576 MiB, in which the kernel has killed 3 processes."""
    monkeypatch.setattr(container_memory, "oom_kills", lambda: 3)
    monkeypatch.setattr(container_memory, "memory_limit", lambda: 576 * MIB)


def test_kill_at_the_memory_limit_names_the_limit():
    reason = process_exit.exit_reason(-signal.SIGKILL, oom_kills_before=2)
    assert "memory limit" in reason
    assert "576 MiB" in reason


def test_kill_without_a_new_oom_kill_does_not_name_the_limit():
    assert "memory limit" not in process_exit.exit_reason(-signal.SIGKILL, oom_kills_before=3)


@pytest.mark.parametrize(("code", "part"), [(3, "exit code 3"), (-11, "SIGSEGV"), (None, "without an exit code")])
def test_exit_reason_names_the_code_or_signal(code, part):
    assert part in process_exit.exit_reason(code, 0)
