"""Memory and process limits of the containers: read from the compose files, checked, and sized for the machine.

Each service takes its limits from `<SERVICE>_MEMORY` and `<SERVICE>_PIDS` in .env. The defaults are only in the compose
files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import GIB, MIB, parse_size
from ops import worker_bounds
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from ops.project import Project

WORKER_BASE: Final = 512 * MIB
"""Memory of a worker with idle slots: 330 MiB of processes at 8 slots, and room for its page cache."""
SLOT: Final = 448 * MIB
"""Default memory of one slot: a task that imports scikit-learn (120 MiB) and holds 200 MB, plus a fifth."""
SMALLEST_SLOT: Final = 128 * MIB
"""Memory of a task that imports scikit-learn and holds no data."""
OTHERS_USE: Final = 4 * GIB
"""Memory of all services but the workers under load, with profile `observability`, plus 1 GiB for the system."""
ROUNDING: Final = 256 * MIB

LIMIT = re.compile(r"\$\{(?P<variable>[A-Z0-9_]+_(?:MEMORY|PIDS)):-(?P<default>\w+)\}")
UNITS: Final = {"m": MIB, "g": GIB}


def size(text: str) -> int | None:
    """Return the bytes of a size such as `512m` or `4g`; None for any other text."""
    return parse_size(text, UNITS)


def defaults(folder: Path) -> dict[str, str]:
    """Return every limit that a compose file of the folder reads from .env, with its default.

    If two services share a variable (single Postgres, Postgres under Patroni), the smaller default counts.
    """
    smallest: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        for match in LIMIT.finditer(file.read_text(encoding="utf-8")):
            variable, default = match["variable"], match["default"]
            if variable not in smallest or _amount(default) < _amount(smallest[variable]):
                smallest[variable] = default
    return smallest


def _amount(text: str) -> int:
    return size(text) or int(text)


def refused_values(settings: Mapping[str, str], known: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each limit that is not valid, and its valid values.

    Args:
        settings: The settings of .env, with a valid WORKER_CONCURRENCY.
        known: The limits that the compose files read, with their defaults; see defaults().
    """
    refused = []
    for key, default in known.items():
        value = settings.get(key)
        if not value:
            continue
        if key.endswith("_PIDS"):
            if not value.isdecimal() or int(value) < int(default):
                refused.append((key, f"a number of processes, {default} or more"))
            continue
        minimum = _worker_minimum(settings) if key == "WORKER_MEMORY" else _amount(default)
        if (size(value) or 0) < minimum:
            why = " with this WORKER_CONCURRENCY" if key == "WORKER_MEMORY" else ""
            refused.append((key, f"a size such as 4g, at least {minimum // MIB}m{why}"))
    return refused


def _worker_minimum(settings: Mapping[str, str]) -> int:
    return WORKER_BASE + int(settings.get("WORKER_CONCURRENCY") or 1) * SMALLEST_SLOT


def size_workers(settings: Mapping[str, str], machine: int) -> dict[str, str]:
    """Return WORKER_MEMORY and WORKER_CONCURRENCY: the values of .env, or values that fit the machine.

    Args:
        settings: The settings of .env.
        machine: The machine's memory in bytes.
    """
    chosen = size(settings.get("WORKER_MEMORY", ""))
    slots = int(settings.get("WORKER_CONCURRENCY") or 0)
    if chosen is None:
        spare = max(machine - OTHERS_USE, 0) // worker_bounds.most_workers(settings) // ROUNDING * ROUNDING
        preferred = WORKER_BASE + (slots or worker_bounds.default_slots()) * SLOT
        minimum = max(GIB, WORKER_BASE + slots * SMALLEST_SLOT)
        chosen = -(-max(min(spare, preferred), minimum) // ROUNDING) * ROUNDING
    fitting = min(worker_bounds.default_slots(), (chosen - WORKER_BASE) // (2 * SMALLEST_SLOT))
    return {
        "WORKER_MEMORY": settings.get("WORKER_MEMORY") or f"{chosen // MIB}m",
        "WORKER_CONCURRENCY": str(slots or max(1, fitting)),
    }


def check_machine(project: Project, settings: Mapping[str, str], machine: int) -> None:
    """Refuse a memory limit that exceeds the machine's memory.

    Args:
        project: The stack.
        settings: The settings of .env.
        machine: The machine's memory in bytes; 0 if unknown.

    Raises:
        StackError: The error names the variable.
    """
    workers = worker_bounds.most_workers(settings)
    for key, value in settings.items():
        limit = size(value) if key.endswith("_MEMORY") else None
        if limit and machine and limit > machine:
            raise StackError(
                f"cannot reserve {key}={value}: this machine has {machine / GIB:.1f} GiB",
                where=project.shown(project.env_file),
                hint=f"lower {key}",
            )
    if machine and workers * (size(settings.get("WORKER_MEMORY", "")) or 0) > machine:
        raise StackError(
            f"cannot reserve {workers} workers of {settings['WORKER_MEMORY']}: this machine has "
            f"{machine / GIB:.1f} GiB",
            where=project.shown(project.env_file),
            hint="lower WORKER_MEMORY, or WORKER_REPLICAS and WORKER_CEILING",
        )


def total(model: Mapping[str, Any]) -> int:
    """Return the sum of a compose model's memory limits in bytes, without one-shot services, which end early."""
    return sum(
        int(service["deploy"].get("replicas") or 1) * int(service["deploy"]["resources"]["limits"]["memory"])
        for service in model["services"].values()
        if service.get("restart") == "always"
    )


def summary(settings: Mapping[str, str], limits: int, machine: int) -> str:
    """Return the memory budget as one line: the share of a task, and all limits against the machine.

    Args:
        settings: The settings of .env.
        limits: The sum of all limits in bytes.
        machine: The machine's memory in bytes.
    """
    memory, slots = settings["WORKER_MEMORY"], int(settings["WORKER_CONCURRENCY"])
    slot = ((size(memory) or 0) - WORKER_BASE) // slots // MIB
    line = (
        f"memory: {settings['WORKER_REPLICAS']} workers of {memory} with {slots} slots, {slot} MiB for a task at full "
        f"load; the limits add up to {limits / GIB:.1f} GiB, the machine has {machine / GIB:.1f} GiB"
    )
    if limits > machine:
        line += (
            ": it can run out of memory before a container reaches its limit. Lower WORKER_MEMORY or WORKER_REPLICAS"
        )
    return line
