"""The settings of autoscaling: the fewest and the most workers, and the slots of each."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE: Final = "worker"
"""The service whose instances are added and removed."""
FLOOR, CEILING = "WORKER_FLOOR", "WORKER_CEILING"
DEFAULT_FLOOR: Final = 2
"""Workers that stay without load: the loss of one leaves one."""
SCALE_IN_SECONDS: Final = 300.0
"""Time of lower demand before workers are removed."""
SLOTS: Final = "WORKER_CONCURRENCY"
DEFAULT_SLOTS: Final = re.compile(rf"\$\{{{SLOTS}:-(\d+)\}}")
"""The slots of a worker in compose/airflow.yaml."""


@dataclass(frozen=True)
class Bounds:
    """What limits the number of workers.

    Attributes:
        floor: The fewest workers.
        ceiling: The most workers.
        slots: The slots of a worker.
    """

    floor: int
    ceiling: int
    slots: int

    def within(self, workers: int) -> int:
        """Return the number of workers between floor and ceiling that is nearest to a number."""
        return max(self.floor, min(workers, self.ceiling))


def bounds(settings: Mapping[str, str]) -> Bounds | None:
    """Return the bounds by the settings of .env; None without a ceiling, which turns autoscaling off."""
    ceiling = settings.get(CEILING)
    if not ceiling:
        return None
    slots = int(settings.get(SLOTS) or default_slots())
    return Bounds(int(settings.get(FLOOR) or DEFAULT_FLOOR), int(ceiling), slots)


@functools.cache
def default_slots() -> int:
    """Return the slots of a worker without WORKER_CONCURRENCY, which the first `up` writes."""
    (slots,) = set(DEFAULT_SLOTS.findall((ROOT / "compose/airflow.yaml").read_text(encoding="utf-8")))
    return int(slots)


def most_workers(settings: Mapping[str, str]) -> int:
    """Return how many workers may run at once: the ceiling, or the replica count if that is higher."""
    return max(int(settings["WORKER_REPLICAS"]), int(settings.get(CEILING) or 0))
