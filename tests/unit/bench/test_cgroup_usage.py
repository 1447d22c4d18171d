"""What containers use is read from their control groups, of either version, and added up by service."""

from __future__ import annotations

import pytest

from ops.bench import cgroup_usage
from ops.bench.cgroup_usage import Usage, group, memory, numbers, read, spent
from ops.errors import StackError

ONE = "a" * 64
FIRST = f"9:name=systemd:/docker/{ONE}\n4:memory:/docker/{ONE}\n2:cpu,cpuacct:/docker/{ONE}\n0::/docker/{ONE}\n"
SECOND = f"0::/system.slice/docker-{ONE}.scope\n"


def test_a_group_of_version_1_has_a_folder_by_controller():
    assert group(FIRST, "cpuacct") == f"cpuacct/docker/{ONE}"
    assert group(FIRST, "memory") == f"memory/docker/{ONE}"


def test_a_group_of_version_2_has_one_folder_for_all():
    assert group(SECOND, "cpuacct") == group(SECOND, "memory") == f"system.slice/docker-{ONE}.scope"


def test_a_path_may_hold_colons():
    assert group("0::/a:b/c\n", "memory") == "a:b/c"


def test_a_stat_file_is_names_and_numbers():
    assert numbers("usage_usec 12\nuser_usec 5\n") == {"usage_usec": 12, "user_usec": 5}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes a container's files of one version or the other; its first process is 7."""
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


def test_version_1_counts_nanoseconds(machine):
    machine(
        FIRST,
        {
            f"cpuacct/docker/{ONE}/cpuacct.usage": "1500000000\n",
            f"memory/docker/{ONE}/memory.usage_in_bytes": "1000\n",
            f"memory/docker/{ONE}/memory.stat": "cache 9\ntotal_inactive_file 400\n",
        },
    )
    assert read({ONE: ("worker", 7)}) == {ONE: Usage("worker", 1.5, 600.0)}


def test_version_2_counts_microseconds(machine):
    folder = f"system.slice/docker-{ONE}.scope"
    machine(
        SECOND,
        {
            f"{folder}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            f"{folder}/memory.current": "1000\n",
            f"{folder}/memory.stat": "anon 9\ninactive_file 400\n",
        },
    )
    assert read({ONE: ("worker", 7)}) == {ONE: Usage("worker", 1.5, 600.0)}


def test_a_process_id_that_is_another_containers_by_now_is_not_counted(machine):
    machine("0::/user.slice\n", {})
    with pytest.raises(StackError, match="not on this machine"):
        read({ONE: ("worker", 7)})


def test_two_containers_of_a_service_are_added_and_one_that_came_meanwhile_is_not():
    before = {"a": Usage("worker", 1.0, 0), "b": Usage("worker", 2.0, 0), "gone": Usage("redis", 1.0, 0)}
    after = {"a": Usage("worker", 1.5, 10), "b": Usage("worker", 3.0, 20), "new": Usage("redis", 9.0, 5)}
    assert spent(before, after) == {"worker": 1.5}
    assert memory(after) == {"redis": 5, "worker": 30}


def test_a_containers_service_and_process_are_dockers_answer(monkeypatch):
    one = {"Id": ONE, "Config": {"Labels": {"com.docker.compose.service": "worker"}}, "State": {"Pid": 7}}
    asked: list[str] = []
    monkeypatch.setattr(cgroup_usage.compose, "docker", lambda *arguments: asked.extend(arguments) or f"{ONE}\n")
    monkeypatch.setattr(cgroup_usage.compose, "inspect", lambda ids: [one] if ids == [ONE] else [])
    assert cgroup_usage.containers("x") == {ONE: ("worker", 7)}
    assert "--filter=label=com.docker.compose.project=x" in asked
