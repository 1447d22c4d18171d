"""What became of a patch in this process."""

from __future__ import annotations

from typing import Final, NamedTuple

APPLIED: Final = "applied"
SKIPPED: Final = "skipped"
OFF: Final = "off"


class State(NamedTuple):
    """What became of a patch: APPLIED, SKIPPED or OFF, and why."""

    state: str
    reason: str = ""
