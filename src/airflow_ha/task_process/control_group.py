"""The container's own control group, of version 1 or 2."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CGROUP: Final = Path("/sys/fs/cgroup")
UNLIMITED: Final = 1 << 60
"""Version 1 writes a number near 2^63 for no limit."""


def number(names: Sequence[str], cgroup: Path = CGROUP) -> int | None:
    """Return the number in the first of these files that has one; None if there is none, or it means no limit."""
    for name in names:
        with suppress(OSError, ValueError):
            value = int((cgroup / name).read_text())
            return value if value < UNLIMITED else None
    return None
