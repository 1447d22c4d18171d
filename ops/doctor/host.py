"""The host: memory, pressure, disks and clock."""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from airflow_ha.sizes import GIB
from ops import compose
from ops.doctor.finding import Finding, Urgency
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined

PRESSURE: Final = Path("/proc/pressure")
"""Share of time in which work waits for a resource: https://docs.kernel.org/accounting/psi.html."""
DOCKER_DATA: Final = Path("/var/lib/docker")
"""Docker's default folder, for a daemon that does not answer."""
CLOCK_ERROR: Final = 5
"""TIME_ERROR of adjtimex(2): no time service synchronizes the clock."""

MEMORY_SOON, MEMORY_URGENT = 0.10, 0.05
"""Available share of the memory."""
DISK_SOON, DISK_URGENT = 0.90, 0.97
"""Used share: the alert DiskFilling fires at the first; above the second running tasks end (TASK_DISK_RESERVE)."""


class Stall(NamedTuple):
    """A line of /proc/pressure: its resource and kind, and the percentages of 5 minutes from which it is a finding."""

    resource: str
    kind: str
    soon: float
    urgent: float


STALLS: Final = (Stall("memory", "full", 2, 10), Stall("io", "full", 20, 50))
"""`full`: every process that has work waits. CPU is left out: it is full whenever many tasks run."""


class Disk(NamedTuple):
    """A file system: a folder on it, what is stored there, its size and free space in bytes, its share of inodes."""

    folder: str
    content: str
    size: int
    free: int
    inodes_used: float

    @property
    def used(self) -> float:
        """The used share, of space or of inodes, whichever is larger."""
        return max(1 - self.free / self.size if self.size else 0.0, self.inodes_used)


@dataclass(frozen=True)
class Host:
    """The host's state; `pressure` is None without PSI, `is_synchronized` where the kernel does not know it."""

    memory: int
    available: int
    pressure: dict[tuple[str, str], float] | None
    disks: tuple[Disk, ...]
    is_synchronized: bool | None


def gather(examined: Examined) -> Host:
    """Return the host's state; volumes whose folder this user cannot read are left out."""
    virtual = psutil.virtual_memory()
    return Host(
        memory=virtual.total,
        available=virtual.available,
        pressure=read_pressure(PRESSURE),
        disks=tuple(disks(folders(examined))),
        is_synchronized=clock_is_synchronized(),
    )


def read_pressure(folder: Path) -> dict[tuple[str, str], float] | None:
    """Return the percentages of the last 5 minutes by resource and kind; None without PSI."""
    try:
        texts = {resource: (folder / resource).read_text() for resource in ("memory", "io")}
    except OSError:
        return None
    return {
        (resource, match["kind"]): float(match["percent"])
        for resource, text in texts.items()
        for match in re.finditer(r"^(?P<kind>some|full) .*avg300=(?P<percent>[\d.]+)", text, re.MULTILINE)
    }


def folders(examined: Examined) -> dict[str, Path]:
    """Return the folders whose disks matter, by their content."""
    found = {"settings and secrets": examined.project.state}
    if not examined.docker_answers:
        return {"Docker": DOCKER_DATA, **found}
    root = compose.docker("info", "--format", "{{.DockerRootDir}}").strip()
    names = compose.volumes(examined.settings["COMPOSE_PROJECT_NAME"]) if examined.settings else []
    volumes = json.loads(compose.docker("volume", "inspect", *names) or "[]") if names else []
    mounted = {f"volume {volume['Name']}": Path(volume["Mountpoint"]) for volume in volumes}
    return {"Docker": Path(root or DOCKER_DATA), **mounted, **found}


def disks(by_content: dict[str, Path]) -> Iterator[Disk]:
    """Yield each file system once, with the content of the first folder on it."""
    seen = set()
    for content, folder in by_content.items():
        try:
            device, system = folder.stat().st_dev, os.statvfs(folder)
        except OSError:
            continue
        if device in seen:
            continue
        seen.add(device)
        inodes = 1 - system.f_favail / system.f_files if system.f_files else 0.0
        yield Disk(str(folder), content, system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize, inodes)


def clock_is_synchronized() -> bool | None:
    """Return whether a time service synchronizes the clock; None where the kernel does not know it."""
    if sys.platform != "linux":
        return None
    # A zeroed struct timex, whose size differs by platform (208 bytes on x86-64), only reads.
    state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    return None if state < 0 else state != CLOCK_ERROR


def urgency_above(value: float, soon: float, urgent: float) -> Urgency | None:
    """Return the urgency of a value; None below both limits."""
    return Urgency.URGENT if value >= urgent else Urgency.SOON if value >= soon else None


def memory(host: Host) -> Iterator[Finding]:
    """Yield a finding if little memory is available."""
    share = host.available / host.memory
    if urgency := urgency_above(1 - share, 1 - MEMORY_SOON, 1 - MEMORY_URGENT):
        value = f"{host.available / GIB:.1f} of {host.memory / GIB:.1f} GiB available"
        fix = "stop other programs, or lower WORKER_MEMORY or WORKER_REPLICAS in compose/.env, then ./ops/stack up"
        yield Finding(urgency, "host", "little memory", value, fix)


def pressure(host: Host) -> Iterator[Finding]:
    """Yield a finding for each resource that the host's processes wait for."""
    if host.pressure is None:
        yield Finding(
            Urgency.NOTE, "host", "pressure unknown", "the kernel has no /proc/pressure", "boot Linux with psi=1"
        )
        return
    for stall in STALLS:
        percent = host.pressure.get((stall.resource, stall.kind), 0.0)
        if urgency := urgency_above(percent, stall.soon, stall.urgent):
            value = f"all work stalled {percent:.0f}% of the last 5 minutes"
            fix = "docker stats --no-stream shows who uses it; ./ops/stack scale worker=N with a lower N relieves it"
            yield Finding(urgency, "host", f"{stall.resource} pressure", value, fix)


def disk_space(host: Host) -> Iterator[Finding]:
    """Yield a finding for each disk that is nearly full."""
    for disk in host.disks:
        if urgency := urgency_above(disk.used, DISK_SOON, DISK_URGENT):
            value = f"{disk.used:.0%} used, {disk.free / GIB:.1f} GiB free at {disk.folder}"
            fix = "docker system df -v shows who uses it; docker builder prune and docker image prune free some"
            yield Finding(urgency, f"disk of {disk.content}", "nearly full", value, fix)


def clock(host: Host) -> Iterator[Finding]:
    """Yield a finding if no time service synchronizes the clock."""
    if host.is_synchronized is False:
        value = "tokens, schedules and logs of other machines may not match"
        yield Finding(Urgency.SOON, "host", "clock not synchronized", value, "sudo timedatectl set-ntp true")


def clock_difference(before: float, remote: float, after: float) -> float:
    """Return by how many seconds a clock read between two readings of this one differs at least."""
    return max(before - remote, remote - after, 0.0)


CLOCK_SOON: Final = 1.0
"""Seconds. Without a virtual machine in between containers have the host's clock."""


def other_clock(service: str, difference: float) -> Iterator[Finding]:
    """Yield a finding if a service's clock differs from the host's."""
    if difference >= CLOCK_SOON:
        value = f"{difference:.1f} s from the host's"
        yield Finding(Urgency.SOON, service, "clock differs", value, "restart Docker, which sets its machine's clock")


def number(text: str | None, source: str) -> float:
    """Return a number that a container printed.

    Raises:
        StackError: It printed no number.
    """
    try:
        return float(text or "")
    except ValueError:
        raise StackError(f"cannot read {source}: no number: {(text or '')[:60]!r}") from None
