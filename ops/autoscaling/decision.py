"""How many workers there shall be, from what is queued and runs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ops.worker_bounds import Bounds

LONGEST_GAP: Final = 60.0
"""Seconds between two counts from which the time between them counts as unknown."""


@dataclass(frozen=True)
class Demand:
    """The task instances of the workers' queues that are queued, and those that run."""

    queued: int
    running: int

    def workers(self, slots: int) -> int:
        """Return the number of workers with a slot for each task."""
        return -(-(self.queued + self.running) // slots)


@dataclass(frozen=True)
class Decision:
    """The number of workers that there shall be, and why; the same number for no change."""

    workers: int
    reason: str


class Autoscaler:
    """The decisions of one process, from its counts so far.

    More workers come at once. Fewer come only after `window` seconds in which every count was known and lower: then as
    many stay as the highest of these counts needs. So a load that comes and goes within the window changes nothing.

    Args:
        window: Seconds.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        self._counts: deque[tuple[float, int]] = deque()
        self._known_since = 0.0
        self._own: set[int] = set()

    def forget(self) -> None:
        """Start the window again: the tasks could not be counted."""
        self._counts.clear()

    def decide(self, now: float, bounds: Bounds, current: int, demand: Demand) -> Decision:
        """Return the decision by a new count.

        Args:
            now: A clock that only goes forward, in seconds.
            bounds: Floor, ceiling and slots.
            current: The number of workers that there shall be until now. If neither this number nor the last decision
                gave it, an operator did: then the window starts again.
            demand: The tasks.
        """
        wanted = demand.workers(bounds.slots)
        self._record(now, current, wanted)
        decision = self._decision(now, bounds, current, wanted)
        self._own = {current, decision.workers}
        return decision

    def _record(self, now: float, current: int, wanted: int) -> None:
        if self._counts and (current not in self._own or now - self._counts[-1][0] > LONGEST_GAP):
            self.forget()
        if not self._counts:
            self._known_since = now
        self._counts.append((now, wanted))
        while self._counts[0][0] < now - self.window:
            self._counts.popleft()

    def _decision(self, now: float, bounds: Bounds, current: int, wanted: int) -> Decision:
        if bounds.within(wanted) > current:
            reason = f"{wanted} are needed" + (f", {bounds.ceiling} is the ceiling" if wanted > bounds.ceiling else "")
            return Decision(bounds.within(wanted), reason if wanted > bounds.floor else f"{bounds.floor} is the floor")
        peak = max(count for _, count in self._counts)
        if bounds.within(peak) < current and now - self._known_since >= self.window:
            return Decision(bounds.within(peak), f"at most {peak} were needed for {self.window:.0f} s")
        return Decision(current, "no change")
