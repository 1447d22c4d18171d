"""An outcome of a drill, as if it had run."""

from __future__ import annotations

from dataclasses import replace

from ops.drills.catalogue import DRILLS
from ops.drills.evaluate import Outcome


def make_outcome(drill: str, recovery: float | None = 2.0, **changes) -> Outcome:
    """Return an outcome of a drill of the catalogue that kept all promises, with changes."""
    sentence = next(each.sentence for each in DRILLS if each.name == drill)
    kept = Outcome(
        drill=drill,
        sentence=sentence,
        recovery=recovery,
        healthy_after=20.0,
        attempts_lost=0,
        tasks_lost=0,
        tasks_doubled=0,
        overlapping=0,
        alerts={},
        broken=(),
    )
    return replace(kept, **changes)
