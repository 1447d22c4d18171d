"""The pace of maintenance: it works a third of the time, and shows that it is alive."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from airflow_ha.health.freshness import MAINTENANCE_FILE

SLICE: Final = 0.1
"""Seconds of work after which a pause is due, and the duration of a transaction that deletions aim at."""
REST: Final = 2.0
"""Duration of a pause, in multiples of the work before it."""


class Pace:
    """Pauses between the slices of a removal."""

    def __init__(self, alive: Path = Path(MAINTENANCE_FILE)) -> None:
        self._alive = alive
        self._resumed = time.monotonic()

    def rest(self) -> None:
        """Pause for twice as long as the work since the last pause took, once that is a slice."""
        worked = time.monotonic() - self._resumed
        if worked < SLICE:
            return
        self._alive.touch()
        time.sleep(REST * worked)
        self._resumed = time.monotonic()
