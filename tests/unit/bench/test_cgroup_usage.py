"""Usage of containers is read from control groups of either version, and summed by service."""

from __future__ import annotations

import pytest

from ops.bench import cgroup_usage
from ops.bench.cgroup_usage import Usage, cgroup_path, cpu_by_service, memory_by_service, parse_stat, read_usage
from ops.errors import StackError

ONE = "a" * 64
VERSION_1 = f"9:name=systemd:/docker/{ONE}\n4:memory:/docker/{ONE}\n2:cpu,cpuacct:/docker/{ONE}\n0::/docker/{ONE}\n"
VERSION_2 = f"0::/system.slice/docker-{ONE}.scope\n"


def test_cgroup_v1_has_a_folder_for_each_controller():
    assert cgroup_path(VERSION_1, "cpuacct") == f"cpuacct/docker/{ONE}"
    assert cgroup_path(VERSION_1, "memory") == f"memory/docker/{ONE}"


def test_cgroup_v2_has_one_folder():
    assert cgroup_path(VERSION_2, "cpuacct") == cgroup_path(VERSION_2, "memory") == f"system.slice/docker-{ONE}.scope"


def test_cgroup_path_may_contain_colons():
    assert cgroup_path("0::/a:b/c\n", "memory") == "a:b/c"


def test_stat_file_is_parsed():
    assert parse_stat("usage_usec 12\nuser_usec 5\n") == {"usage_usec": 12, "user_usec": 5}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Function that writes the control group files of a container, whose first process is 7."""
    monkeypatch.setattr(cgroup_usage, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cgroup_usage, "PROCESSES", tmp_path / "proc")

    def write(cgroup: str, files: dict[str, str]) -> None:
        (tmp_path / "proc/7").mkdir(parents=True)
        (tmp_path / "proc/7/cgroup").write_text(cgroup)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_cgroup_v1_usage_is_read(machine):
    machine(
        VERSION_1,
        {
            f"cpuacct/docker/{ONE}/cpuacct.usage": "1500000000\n",
            f"memory/docker/{ONE}/memory.usage_in_bytes": "1000\n",
            f"memory/docker/{ONE}/memory.stat": "cache 9\ntotal_inactive_file 400\n",
        },
    )
    assert read_usage({ONE: ("worker", 7)}) == {ONE: Usage("worker", 1.5, 600.0)}


def test_cgroup_v2_usage_is_read(machine):
    folder = f"system.slice/docker-{ONE}.scope"
    machine(
        VERSION_2,
        {
            f"{folder}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            f"{folder}/memory.current": "1000\n",
            f"{folder}/memory.stat": "anon 9\ninactive_file 400\n",
        },
    )
    assert read_usage({ONE: ("worker", 7)}) == {ONE: Usage("worker", 1.5, 600.0)}


def test_process_of_another_container_is_not_counted(machine):
    machine("0::/user.slice\n", {})
    with pytest.raises(StackError, match="not on this machine"):
        read_usage({ONE: ("worker", 7)})


def test_cpu_is_summed_over_containers_in_both_readings():
    before = {"a": Usage("worker", 1.0, 0), "b": Usage("worker", 2.0, 0), "gone": Usage("redis", 1.0, 0)}
    after = {"a": Usage("worker", 1.5, 10), "b": Usage("worker", 3.0, 20), "new": Usage("redis", 9.0, 5)}
    assert cpu_by_service(before, after) == {"worker": 1.5}
    assert memory_by_service(after) == {"redis": 5, "worker": 30}


def test_running_containers_have_service_and_process(monkeypatch):
    container = {"Id": ONE, "Config": {"Labels": {"com.docker.compose.service": "worker"}}, "State": {"Pid": 7}}
    arguments: list[str] = []
    monkeypatch.setattr(cgroup_usage.compose, "docker", lambda *options: arguments.extend(options) or f"{ONE}\n")
    monkeypatch.setattr(cgroup_usage.compose, "inspect", lambda ids: [container] if ids == [ONE] else [])
    assert cgroup_usage.running_containers("x") == {ONE: ("worker", 7)}
    assert "--filter=label=com.docker.compose.project=x" in arguments
