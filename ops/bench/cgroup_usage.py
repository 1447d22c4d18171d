"""CPU time and memory of containers, from the kernel's accounting of their control groups (version 1 or 2).

Docker's API offers the same figures, but updates them only once a second.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops import compose
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

CGROUPS = Path("/sys/fs/cgroup")
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Resources that one container uses.

    Attributes:
        service: Name of its compose service.
        cpu: CPU-seconds since the container started, its health checks included.
        memory: Bytes without the inactive page cache, as `docker stats` shows it.
    """

    service: str
    cpu: float
    memory: float


def cgroup_path(text: str, controller: str) -> str:
    """Return the folder of a process's control group, relative to /sys/fs/cgroup.

    Args:
        text: Content of /proc/PID/cgroup: https://man7.org/linux/man-pages/man7/cgroups.7.html.
        controller: cpuacct or memory; version 1 has one hierarchy for each.
    """
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in text.splitlines())}
    for controllers, path in groups.items():
        if controller in controllers.split(","):
            return f"{controller}{path}"
    return groups[""].lstrip("/")


def parse_stat(text: str) -> dict[str, int]:
    """Return the values of a stat file, which has a name and a number on each line."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def cpu_seconds(folder: Path) -> float:
    """Return the CPU time of a control group."""
    version_1 = folder / "cpuacct.usage"
    if version_1.exists():
        return int(version_1.read_text()) / 1e9
    return parse_stat((folder / "cpu.stat").read_text())["usage_usec"] / 1e6


def memory_bytes(folder: Path) -> float:
    """Return the memory of a control group, without its inactive page cache."""
    stat = parse_stat((folder / "memory.stat").read_text())
    version_1 = folder / "memory.usage_in_bytes"
    if version_1.exists():
        return float(int(version_1.read_text()) - stat["total_inactive_file"])
    return float(int((folder / "memory.current").read_text()) - stat["inactive_file"])


def cpu_by_service(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Return CPU-seconds by service between two readings, for the containers that are in both."""
    seconds: dict[str, float] = defaultdict(float)
    for container in before.keys() & after.keys():
        seconds[after[container].service] += after[container].cpu - before[container].cpu
    return dict(sorted(seconds.items()))


def memory_by_service(usage: Mapping[str, Usage]) -> dict[str, float]:
    """Return bytes by service."""
    held: dict[str, float] = defaultdict(float)
    for container in usage.values():
        held[container.service] += container.memory
    return dict(sorted(held.items()))


def running_containers(project: str) -> dict[str, tuple[str, int]]:
    """Return service and first process id of the running containers of a compose project, by container id."""
    listed = compose.docker("ps", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={project}")
    return {
        container["Id"]: (container["Config"]["Labels"]["com.docker.compose.service"], container["State"]["Pid"])
        for container in compose.inspect(listed.split())
    }


def read_usage(containers: Mapping[str, tuple[str, int]]) -> dict[str, Usage]:
    """Return the usage of the containers that still run, by container id.

    Args:
        containers: The result of `running_containers`.

    Raises:
        StackError: Docker runs its containers on another machine.
    """
    usage = {}
    for container, (service, process) in containers.items():
        try:
            text = (PROCESSES / str(process) / "cgroup").read_text()
            if container not in text:
                raise FileNotFoundError(container)
            cpu, memory = CGROUPS / cgroup_path(text, "cpuacct"), CGROUPS / cgroup_path(text, "memory")
            usage[container] = Usage(service, cpu_seconds(cpu), memory_bytes(memory))
        except FileNotFoundError:
            continue
    if containers and not usage:
        raise StackError(
            "cannot read the containers' control groups: they are not on this machine",
            hint="run this on the Linux machine that Docker runs on",
        )
    return usage


def current_memory(project: str) -> dict[str, float]:
    """Return bytes by service of a compose project's running containers."""
    return memory_by_service(read_usage(running_containers(project)))
