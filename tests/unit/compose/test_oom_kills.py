"""compose/cadvisor/oom-kills.sh names the right container, under both cgroup versions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.project import ROOT

SCRIPT = ROOT / "compose/cadvisor/oom-kills.sh"
REDIS, WORKER, OTHER = "a1" * 32, "b2" * 32, "c3" * 32
LAYOUTS = {
    "v1": ("memory/docker/{}", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    "v1 systemd": ("memory/system.slice/docker-{}.scope", "memory.oom_control", "under_oom 0\noom_kill {}\n"),
    "v2": ("docker/{}", "memory.events", "low 0\noom 9\noom_kill {}\noom_group_kill 0\n"),
    "v2 systemd": ("system.slice/docker-{}.scope", "memory.events", "oom 9\noom_kill {}\noom_group_kill 7\n"),
}


class Machine:
    """A simulated host: its cgroups and its sum of OOM kills."""

    def __init__(self, folder: Path, layout: str) -> None:
        self.folder, self.layout = folder, LAYOUTS[layout]
        self.kills(0)

    def kills(self, number: int) -> None:
        (self.folder / "vmstat").write_text(f"nr_free_pages 1\noom_kill {number}\n")

    def path(self, container: str) -> Path:
        return self.folder / "cgroup" / self.layout[0].format(container)

    def container(self, container: str, kills: int = 0) -> None:
        self.path(container).mkdir(parents=True, exist_ok=True)
        (self.path(container) / self.layout[1]).write_text(self.layout[2].format(kills))

    def end(self, container: str) -> None:
        """Rename the cgroup: a removed one could give its inode to the next."""
        self.path(container).rename(self.folder / f"ended-{len(list(self.folder.iterdir()))}")

    def call(self) -> list[str]:
        names = {"CGROUP_ROOT": "cgroup", "VMSTAT": "vmstat", "STATE": "state"}
        done = subprocess.run(
            ["sh", SCRIPT],
            env={"PATH": "/usr/bin:/bin"} | {key: str(self.folder / name) for key, name in names.items()},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return sorted(done.stdout.splitlines())


def line(container: str, number: int, killed: str) -> str:
    tags = f"airflow_instance:{container[:12]},killed:{killed}"
    return f"airflow.ha_container_oom_kills:{number}|c|#{tags}"


@pytest.fixture(params=LAYOUTS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, request.param)
    machine.kills(40)
    machine.container(REDIS, 30)
    machine.container(WORKER)
    assert machine.call() == [], "kills before the first call are not reported"
    assert machine.call() == []
    return machine


def test_a_killed_process_names_its_container_once(machine: Machine) -> None:
    machine.container(WORKER, 2)
    machine.kills(42)
    assert machine.call() == [line(WORKER, 2, "process")]
    assert machine.call() == []


def test_a_container_that_restarts_by_a_kill_is_named(machine: Machine) -> None:
    """The container's cgroup and the count in it end with the main process."""
    machine.end(WORKER)
    machine.kills(41)
    machine.container(WORKER)
    assert machine.call() == [line(WORKER, 1, "container")]
    assert machine.call() == []


def test_a_container_that_ended_by_a_kill_is_named(machine: Machine) -> None:
    machine.kills(41)
    assert machine.call() == []
    machine.end(REDIS)
    assert machine.call() == [line(REDIS, 1, "container")]


def test_a_restart_without_a_kill_is_silent(machine: Machine) -> None:
    machine.end(WORKER)
    machine.container(WORKER)
    machine.container(OTHER)
    assert [machine.call() for _ in range(5)] == [[]] * 5


def test_a_kill_outside_containers_blames_no_later_restart(machine: Machine) -> None:
    machine.kills(41)
    assert [machine.call() for _ in range(4)] == [[]] * 4
    machine.end(WORKER)
    machine.container(WORKER)
    assert [machine.call() for _ in range(4)] == [[]] * 4


def test_a_kill_between_the_two_readings_counts_once(machine: Machine) -> None:
    machine.container(WORKER, 1)
    assert machine.call() == [line(WORKER, 1, "process")]
    machine.kills(41)
    machine.end(REDIS)
    machine.container(REDIS)
    assert machine.call() == []


def test_a_new_container_that_lost_a_process_is_named(machine: Machine) -> None:
    machine.container(OTHER, 3)
    machine.kills(43)
    assert machine.call() == [line(OTHER, 3, "process")]
