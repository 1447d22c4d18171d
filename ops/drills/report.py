"""The outcomes of drills as a table and as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ops.drills.catalogue import DRILLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.drills.evaluate import Outcome

HEADINGS = (
    "fault",
    "recovery, median (worst)",
    "promised",
    "attempts lost",
    "tasks lost",
    "tasks run twice",
    "alerts",
    "promises kept",
)


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return one row for each drill, over all its repetitions; the columns are HEADINGS."""
    deadlines = {drill.name: drill.deadline for drill in DRILLS}
    table: list[tuple[str, ...]] = []
    for name, group in groupby(outcomes, key=lambda outcome: outcome.drill):
        repetitions = list(group)
        alerts = sorted({f"{alert} after {at:.0f} s" for each in repetitions for alert, at in each.alerts.items()})
        broken = sorted({promise for each in repetitions for promise in each.broken})
        table.append(
            (
                repetitions[0].sentence,
                recovery(repetitions),
                f"{deadlines[name]:.0f} s",
                str(max(each.attempts_lost for each in repetitions)),
                str(max(each.tasks_lost for each in repetitions)),
                str(max(each.tasks_doubled + each.overlapping for each in repetitions)),
                ", ".join(alerts) or "none",
                "; ".join(broken) or "yes",
            )
        )
    return table


def recovery(repetitions: Sequence[Outcome]) -> str:
    """Return the median and the worst recovery of a drill's repetitions; `none` if one of them did not recover."""
    times = [each.recovery for each in repetitions if each.recovery is not None]
    return f"{statistics.median(times):.1f} s ({max(times):.1f} s)" if len(times) == len(repetitions) else "none"


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one object for each drill that ran."""
    return [asdict(outcome) for outcome in outcomes]
