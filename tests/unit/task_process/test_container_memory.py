"""The kernel's figures of a container's memory, and the reason of a process's exit."""

from __future__ import annotations

import signal

import pytest

from airflow_ha.task_process import container_memory
from airflow_ha.task_process.ending import Breach, Ending


@pytest.mark.parametrize(
    ("files", "kills", "limit"),
    [
        ({"memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", "memory.max": "1073741824\n"}, 2, 1 << 30),
        (
            {
                "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
                "memory/memory.limit_in_bytes": "536870912\n",
            },
            4,
            1 << 29,
        ),
        ({"memory.max": "max\n"}, 0, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0, None),
        ({}, 0, None),
    ],
)
def test_control_group_of_either_version_is_read(tmp_path, files, kills, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert (container_memory.oom_kills(tmp_path), container_memory.memory_limit(tmp_path)) == (kills, limit)


@pytest.mark.parametrize(
    ("ending", "reason", "words"),
    [
        (Ending(-9, peak=800 << 20, limit=1 << 30, memory_ran_out=True), "oom", ["OOM", "800 MiB", "1.0 GiB"]),
        (Ending(-9, peak=800 << 20, limit=1 << 30), "signal", ["SIGKILL", "800 MiB"]),
        (Ending(-signal.SIGBUS), "signal", ["SIGBUS"]),
        (Ending(-15, ended_for=Breach("scratch", "No space left: 11g")), "scratch", ["No space left: 11g."]),
        (Ending(-9, peak=2 << 30, ended_for=Breach("oom", "Out of memory")), "oom", ["Out of memory", "2.0 GiB"]),
        (Ending(3), "exit", ["exit code 3"]),
        (Ending(0, memory_ran_out=True), "exit", ["exit code 0"]),
    ],
)
def test_exit_has_a_reason_and_a_text(ending, reason, words):
    assert ending.reason == reason
    assert all(word in ending.text for word in words)
