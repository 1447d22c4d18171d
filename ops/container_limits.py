"""Memory and process limits of the containers: read from the compose files, checked, and sized for the machine.

Each service takes its limits from `<SERVICE>_MEMORY` and `<SERVICE>_PIDS` in .env. The defaults are in the compose
files, and only there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import GIB, MIB, parse_size
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from ops.project import Project

WORKER_BASE: Final = 512 * MIB
"""What a worker holds while its slots are idle, with room for its page cache: 330 MiB of processes at 8 slots."""
SLOT: Final = 448 * MIB
"""The room of one slot by default: a task that imports scikit-learn (120 MiB) and holds 200 MB, and a fifth more."""
SMALLEST_SLOT: Final = 128 * MIB
"""A task that imports scikit-learn and holds nothing."""
DEFAULT_SLOTS: Final = 8
OTHERS_USE: Final = 4 * GIB
"""What everything but the workers holds under load, with the profile `observability`, and a GiB for the system."""
ROUNDING: Final = 256 * MIB

LIMIT = re.compile(r"\$\{(?P<variable>[A-Z0-9_]+_(?:MEMORY|PIDS)):-(?P<default>\w+)\}")
UNITS: Final = {"m": MIB, "g": GIB}


def size(text: str) -> int | None:
    """Return the bytes of a size such as `512m` or `4g`; None for any other text."""
    return parse_size(text, UNITS)


def defaults(folder: Path) -> dict[str, str]:
    """Return every limit that a compose file of the folder takes from .env, with its default.

    Where two services share a variable (one Postgres, or two under Patroni) the smaller default counts.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        for match in LIMIT.finditer(file.read_text(encoding="utf-8")):
            variable, default = match["variable"], match["default"]
            if variable not in found or _amount(default) < _amount(found[variable]):
                found[variable] = default
    return found


def _amount(text: str) -> int:
    return size(text) or int(text)


def check_values(settings: Mapping[str, str], known: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first limit that cannot be used, and what it takes; None when all can.

    Args:
        settings: of .env.
        known: The limits that there are; see defaults().
    """
    for key, value in settings.items():
        if not key.endswith(("_MEMORY", "_PIDS")) or not value:
            continue
        if key not in known:
            return key, f"nothing: no container has this limit. There are {', '.join(sorted(known))}"
        if key.endswith("_PIDS"):
            if not value.isdecimal() or int(value) < int(known[key]):
                return key, f"a number of processes, {known[key]} or more"
            continue
        least = _worker_minimum(settings) if key == "WORKER_MEMORY" else _amount(known[key])
        if (size(value) or 0) < least:
            why = " with this WORKER_CONCURRENCY" if key == "WORKER_MEMORY" else ""
            return key, f"a size such as 4g, at least {least // MIB}m{why}"
    return None


def _worker_minimum(settings: Mapping[str, str]) -> int:
    return WORKER_BASE + int(settings.get("WORKER_CONCURRENCY") or 1) * SMALLEST_SLOT


def size_workers(settings: Mapping[str, str], machine: int) -> dict[str, str]:
    """Return WORKER_MEMORY and WORKER_CONCURRENCY: what .env says, and what fits the machine where it says nothing.

    Args:
        settings: of .env.
        machine: Bytes of memory that it has.
    """
    chosen = size(settings.get("WORKER_MEMORY", ""))
    slots = int(settings.get("WORKER_CONCURRENCY") or 0)
    if chosen is None:
        spare = max(machine - OTHERS_USE, 0) // int(settings["WORKER_REPLICAS"]) // ROUNDING * ROUNDING
        wanted = WORKER_BASE + (slots or DEFAULT_SLOTS) * SLOT
        least = max(GIB, WORKER_BASE + slots * SMALLEST_SLOT)
        chosen = -(-max(min(spare, wanted), least) // ROUNDING) * ROUNDING
    return {
        "WORKER_MEMORY": settings.get("WORKER_MEMORY") or f"{chosen // MIB}m",
        "WORKER_CONCURRENCY": str(slots or max(1, min(DEFAULT_SLOTS, (chosen - WORKER_BASE) // (2 * SMALLEST_SLOT)))),
    }


def check_machine(project: Project, settings: Mapping[str, str], machine: int) -> None:
    """Refuse a limit that the machine does not have.

    Raises:
        StackError: naming the variable.
    """
    workers = int(settings["WORKER_REPLICAS"])
    for key, value in settings.items():
        limit = size(value) if key.endswith("_MEMORY") else None
        if limit and machine and limit > machine:
            raise StackError(
                f"{key}={value} is more than this machine has, {machine / GIB:.1f} GiB",
                where=project.shown(project.env_file),
                hint=f"put a smaller {key} into it",
            )
    if machine and workers * (size(settings.get("WORKER_MEMORY", "")) or 0) > machine:
        raise StackError(
            f"{workers} workers of {settings['WORKER_MEMORY']} are more than this machine has, {machine / GIB:.1f} GiB",
            where=project.shown(project.env_file),
            hint="put fewer WORKER_REPLICAS, or a smaller WORKER_MEMORY, into it",
        )


def total(model: Mapping[str, Any]) -> int:
    """Return the bytes of all limits of a compose model together; one-shots have ended when the others run."""
    return sum(
        int(service["deploy"].get("replicas") or 1) * int(service["deploy"]["resources"]["limits"]["memory"])
        for service in model["services"].values()
        if service.get("restart") == "always"
    )


def summary(settings: Mapping[str, str], limits: int, machine: int) -> str:
    """Return the memory budget as a line: what a task may take, and all limits against the machine.

    Args:
        settings: of .env.
        limits: Bytes of all limits together.
        machine: Bytes of memory that it has.
    """
    memory, slots = settings["WORKER_MEMORY"], int(settings["WORKER_CONCURRENCY"])
    slot = ((size(memory) or 0) - WORKER_BASE) // slots // MIB
    line = (
        f"memory: {settings['WORKER_REPLICAS']} workers of {memory} with {slots} slots, {slot} MiB for a task when all "
        f"are taken; all limits together {limits / GIB:.1f} GiB of the machine's {machine / GIB:.1f} GiB"
    )
    if limits > machine:
        line += ": it can run out before a container does. Lower WORKER_MEMORY or WORKER_REPLICAS to exclude that"
    return line
