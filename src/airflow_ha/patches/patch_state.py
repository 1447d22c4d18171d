"""The state of a patch in this process."""

from __future__ import annotations

from typing import Final, NamedTuple

APPLIED: Final = "applied"
SKIPPED: Final = "skipped"
OFF: Final = "off"


class State(NamedTuple):
    """The state of a patch (APPLIED, SKIPPED or OFF) and its reason."""

    state: str
    reason: str = ""
