"""compose/health/restart-when-unhealthy.sh: its exit codes for Docker, and its signals to the main process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.compose.model import COMPOSE

SCRIPT = COMPOSE / "health" / "restart-when-unhealthy.sh"
LIMIT = 3
MAIN_PROCESS = 7
DEPENDENCY_OUTAGE = f"exit {os.EX_TEMPFAIL}"
TICK = 10_000_000
"""Nanoseconds of CPU between two readings that the script makes of its own account."""


class Container:
    """A container simulated in a folder: the script reads its /proc there, and `kill` is recorded."""

    def __init__(self, folder: Path, age: float = 1000) -> None:
        self.folder = folder
        self.now = 5000.0
        self.waited = 0.0
        self.exit_code = 0
        (folder / "children").write_text(f"{MAIN_PROCESS} ")
        (folder / "stat").write_text(f"1 (docker-init) S {'0 ' * 18}{(self.now - age) * 100:.0f} 0\n")
        paths = {
            "/tmp/guard-state": folder / "state",
            "/proc/uptime": folder / "uptime",
            "/proc/1/task/1/children": folder / "children",
            "/proc/1/stat": folder / "stat",
            "/proc/$main/schedstat": folder / "main-schedstat",
        }
        self.script = SCRIPT.read_text().replace("[ -r /proc/self/schedstat ]", "true")
        self.script = self.script.replace("</proc/self/schedstat", '<"$(own_schedstat)"')
        for path, replacement in paths.items():
            self.script = self.script.replace(path, str(replacement))

    def check(self, probe: str, *, seconds: float = 20, waiting: float = 0, slowed: float = 1) -> list[str]:
        """Run the script once and return the signals that it sends.

        Args:
            probe: A line of shell.
            seconds: Time since the last check.
            waiting: Seconds of these for which the main process waited for a CPU.
            slowed: Ratio of elapsed time to CPU time in the container.
        """
        self.now += seconds
        self.waited += waiting
        kills, ticks, account = (self.folder / name for name in ("kills", "ticks", "own-schedstat"))
        kills.write_text("")
        ticks.write_text("0")
        (self.folder / "uptime").write_text(f"{self.now:.2f} 0.00\n")
        (self.folder / "main-schedstat").write_text(f"1 {self.waited * 1e9:.0f} 1\n")
        # A function takes precedence over the shell's own `kill`.
        functions = f"""
            kill() {{ echo "$*" >>{kills}; }}
            own_schedstat() {{
              ticks=$(($(cat {ticks}) + 1))
              echo "$ticks" >{ticks}
              echo "$((ticks * {TICK})) $((ticks * {TICK * (slowed - 1):.0f})) 1" >{account}
              echo {account}
            }}
        """
        result = subprocess.run(
            ["sh", "-c", functions + self.script, SCRIPT.name, str(LIMIT), "sh", "-c", probe],
            env={"PATH": os.environ["PATH"], "GUARD_TIMEOUT": "0.2"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not result.stderr
        self.exit_code = result.returncode
        return kills.read_text().splitlines()

    def is_killed_by_docker(self) -> None:
        """Leave the state of a script that Docker killed at its time-out."""
        state = self.folder / "state"
        state.write_text(state.read_text().strip() + " begun\n")


TERM, KILL = [f"-s TERM {MAIN_PROCESS}"], [f"-s KILL {MAIN_PROCESS}"]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_a_probe_that_succeeds_is_healthy(container):
    assert container.check("exit 0") == []
    assert container.exit_code == 0


def test_below_the_limit_no_signal_is_sent(container):
    assert [container.check("exit 1"), container.check("exit 2")] == [[], []]
    assert container.exit_code == 1


def test_at_the_limit_sigterm_at_twice_the_limit_sigkill(container):
    assert [container.check("exit 1") for _ in range(6)] == [[], [], TERM, TERM, TERM, KILL]


def test_a_probe_without_an_answer_counts_as_failed(container):
    assert [container.check("sleep 5") for _ in range(3)] == [[], [], TERM]
    assert container.exit_code == 1


def test_a_check_that_docker_killed_counts_as_failed(container):
    container.check("exit 1")
    container.is_killed_by_docker()
    assert container.check("exit 1") == TERM


def test_a_hung_process_is_ended_if_each_check_is_killed(container):
    container.check("exit 1")
    signals = []
    for _ in range(3):
        container.is_killed_by_docker()
        signals += container.check(DEPENDENCY_OUTAGE)
    assert signals == [*TERM, *TERM]


def test_one_success_resets_the_count(container):
    assert [container.check(probe) for probe in ("exit 1", "exit 1", "exit 0", "exit 1", "exit 1")] == [[]] * 5


def test_an_outage_of_a_dependency_is_no_reason_to_restart(container):
    assert [container.check(DEPENDENCY_OUTAGE) for _ in range(10)] == [[]] * 10
    assert container.exit_code == 1


def test_a_starting_container_is_not_ended(tmp_path: Path):
    container = Container(tmp_path, age=0)
    assert [container.check("exit 1", seconds=10) for _ in range(11)] == [[]] * 11


STARVED = [{"waiting": 11}, {"slowed": 15}, {"waiting": 19.9, "slowed": 100}]
NOT_STARVED = [{"waiting": 9}, {"slowed": 8}, {"waiting": 9, "slowed": 8}]


@pytest.mark.parametrize("state", STARVED)
def test_a_starved_container_is_unhealthy_and_not_ended(container, state):
    assert [container.check("exit 1", **state) for _ in range(12)] == [[]] * 12
    assert container.exit_code == 1


@pytest.mark.parametrize("state", NOT_STARVED)
def test_a_hung_process_on_a_busy_host_is_ended(container, state):
    assert [container.check("exit 1", **state) for _ in range(3)] == [[], [], TERM]


def test_starvation_resets_the_count(container):
    container.check("exit 1")
    container.check("exit 1")
    container.check("exit 1", waiting=15)
    assert [container.check("exit 1") for _ in range(3)] == [[], [], TERM]


def test_a_check_killed_while_starved_does_not_count(container):
    container.check("exit 1")
    container.check("exit 1")
    container.is_killed_by_docker()
    assert container.check(DEPENDENCY_OUTAGE, waiting=15) == []
    assert [container.check("exit 1") for _ in range(2)] == [[], []]
