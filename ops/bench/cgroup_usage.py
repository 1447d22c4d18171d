"""What containers use, by the kernel's own accounting of their control groups, of either version.

Read from the files themselves: Docker's API has the same figures only once a second.
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
    """One container's.

    Attributes:
        service: its name in compose.
        cpu: seconds of one core since it started, its health checks included.
        memory: bytes, without the page cache that can be had back at once: what `docker stats` shows.
    """

    service: str
    cpu: float
    memory: float


def group(text: str, controller: str) -> str:
    """A process's control group, by its /proc/PID/cgroup: https://man7.org/linux/man-pages/man7/cgroups.7.html.

    Args:
        text: The file's.
        controller: cpuacct or memory; has a hierarchy of its own in version 1.

    Returns:
        The folder of it under /sys/fs/cgroup.
    """
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in text.splitlines())}
    for controllers, path in groups.items():
        if controller in controllers.split(","):
            return f"{controller}{path}"
    return groups[""].lstrip("/")


def numbers(text: str) -> dict[str, int]:
    """A file of lines with a name and a number."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def cpu_seconds(folder: Path) -> float:
    """CPU time of a control group."""
    first = folder / "cpuacct.usage"
    if first.exists():
        return int(first.read_text()) / 1e9
    return numbers((folder / "cpu.stat").read_text())["usage_usec"] / 1e6


def memory_bytes(folder: Path) -> float:
    """Memory of a control group, without its inactive page cache."""
    stat = numbers((folder / "memory.stat").read_text())
    first = folder / "memory.usage_in_bytes"
    if first.exists():
        return float(int(first.read_text()) - stat["total_inactive_file"])
    return float(int((folder / "memory.current").read_text()) - stat["inactive_file"])


def spent(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """CPU-seconds by service between two readings, of the containers that are in both."""
    found: dict[str, float] = defaultdict(float)
    for container in before.keys() & after.keys():
        found[after[container].service] += after[container].cpu - before[container].cpu
    return dict(sorted(found.items()))


def memory(now: Mapping[str, Usage]) -> dict[str, float]:
    """Bytes by service."""
    found: dict[str, float] = defaultdict(float)
    for one in now.values():
        found[one.service] += one.memory
    return dict(sorted(found.items()))


def containers(project: str) -> dict[str, tuple[str, int]]:
    """The running containers of a compose project by id: its service, and its first process."""
    listed = compose.docker("ps", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={project}")
    return {
        one["Id"]: (one["Config"]["Labels"]["com.docker.compose.service"], one["State"]["Pid"])
        for one in compose.inspect(listed.split())
    }


def read(of: Mapping[str, tuple[str, int]]) -> dict[str, Usage]:
    """What containers have used until now, of those that still run.

    Args:
        of: see `containers`.

    Raises:
        StackError: Docker's processes are not this machine's.
    """
    found = {}
    for container, (service, process) in of.items():
        try:
            text = (PROCESSES / str(process) / "cgroup").read_text()
            if container not in text:
                raise FileNotFoundError(container)
            cpu, held = CGROUPS / group(text, "cpuacct"), CGROUPS / group(text, "memory")
            found[container] = Usage(service, cpu_seconds(cpu), memory_bytes(held))
        except FileNotFoundError:
            continue
    if of and not found:
        raise StackError(
            "the containers' control groups are not on this machine",
            hint="run this on the Linux machine that Docker runs on",
        )
    return found
