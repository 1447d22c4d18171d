"""Sizes such as `512m` in settings and messages. Each caller passes the units that its setting accepts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4

_BYTES: Final = {"b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
DOCKER_UNITS: Final = {"": 1} | _BYTES | {f"{unit}b": factor for unit, factor in _BYTES.items()}
"""As in Docker's own parser: `2g`, `2gb` or a number of bytes."""


def parse_size(text: str, units: Mapping[str, int]) -> int | None:
    """Return a size in bytes; None if the text is not a whole number with one of the units.

    Args:
        text: for example `512m`.
        units: the bytes by unit; the empty unit allows a number of bytes.
    """
    match = re.fullmatch(r"(\d+)([a-z]*)", text)
    if match is None or match[2] not in units:
        return None
    return int(match[1]) * units[match[2]]


def shown(number: float) -> str:
    """Return a number of bytes in a readable form, for example `812 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
