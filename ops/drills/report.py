"""What drills showed, as a table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ops.drills.catalogue import DRILLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.drills.runner import Outcome

HEADINGS = (
    "fault",
    "recovery, median (worst)",
    "promised",
    "attempts lost",
    "tasks lost",
    "tasks twice",
    "alert",
    "kept",
)


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A row a drill, over all its repetitions."""
    promised = {drill.name: drill for drill in DRILLS}
    found: list[tuple[str, ...]] = []
    for name, group in groupby(outcomes, key=lambda outcome: outcome.drill):
        of = list(group)
        alerts = sorted({f"{alert} after {at:.0f} s" for outcome in of for alert, at in outcome.alerts.items()})
        broken = sorted({promise for outcome in of for promise in outcome.broken})
        found.append(
            (
                of[0].sentence,
                recovery(of),
                f"{promised[name].deadline:.0f} s",
                str(max(outcome.attempts_lost for outcome in of)),
                str(max(outcome.tasks_lost for outcome in of)),
                str(max(outcome.tasks_doubled + outcome.overlapping for outcome in of)),
                ", ".join(alerts) or "none",
                "; ".join(broken) or "yes",
            )
        )
    return found


def recovery(of: Sequence[Outcome]) -> str:
    """The median and the worst of one drill's recoveries; `none` when one of them did not come."""
    times = [outcome.recovery for outcome in of if outcome.recovery is not None]
    return f"{statistics.median(times):.1f} s ({max(times):.1f} s)" if len(times) == len(of) else "none"


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Every drill that was held, one object each."""
    return [asdict(outcome) for outcome in outcomes]
