"""The recorded results of the drills on Kubernetes: drill_results.json and its page RESULTS.md.

`./ops/stack kubernetes drill --all --repeat 5 --write` measures them.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypedDict

from ops.kubernetes.pod_drills import PodOutcome
from ops.markdown_table import markdown_table
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ops.kubernetes.pod_drills import PodDrill

RESULTS: Final = ROOT / "ops/kubernetes/drill_results.json"
PAGE: Final = ROOT / "ops/kubernetes/RESULTS.md"
PROMISE_HEADINGS: Final = ("drill", "fault", "recovery within", "every pod ready within", "tries that may be lost")
HEADINGS: Final = (
    *("drill", "recovery, median (worst)", "every pod ready", "tries lost", "tasks lost / run twice"),
    *("promises kept", "where"),
)
PROMISES_PART: Final = """\
# Drills on Kubernetes

A drill injects one fault while the drills' load runs: short tasks, and six long ones. A ledger outside Airflow counts
what became of each task. No task may be lost, and none may complete twice or run twice at the same time.

`./ops/stack kubernetes drill --all --repeat 5 --write` writes this page from [drill_results.json](drill_results.json).

## Promises

- **recovery**: where tries may be lost, until the tasks of the ended pods run elsewhere; otherwise until the next short
  task completes.
- **every pod ready**: until each Deployment has all its pods, and none of the ended ones.

"""
RESULTS_PART: Final = "\n## Results\n\n"
NOTHING: Final = "Nothing was measured yet.\n"


class Series(TypedDict):
    """The repetitions of one drill on one day; an outcome has the attributes of `PodOutcome` as keys."""

    where: str
    date: str
    outcomes: list[dict[str, Any]]


def read() -> dict[str, Series]:
    """Return the recorded results by drill."""
    recorded: dict[str, Series] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return recorded


def write(drills: Sequence[PodDrill], outcomes: Sequence[PodOutcome], where: str, date: str) -> None:
    """Add new outcomes to drill_results.json, and write RESULTS.md; see `merged` for the arguments."""
    recorded = merged(read(), drills, outcomes, where, date)
    RESULTS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(drills, recorded), encoding="utf-8")


def merged(
    recorded: Mapping[str, Series], drills: Sequence[PodDrill], outcomes: Sequence[PodOutcome], where: str, date: str
) -> dict[str, Series]:
    """Return the recorded results with new series in place of earlier ones of the same drill.

    Args:
        recorded: The results so far; those of drills that no longer exist are dropped.
        drills: All drills.
        outcomes: The new outcomes.
        where: The cluster that they were measured on, such as `2 nodes, 2 cores and 24 GiB together`.
        date: The day, as YYYY-MM-DD.
    """
    results: dict[str, Series] = {}
    for drill in drills:
        repetitions = [asdict(outcome) for outcome in outcomes if outcome.drill == drill.name]
        if repetitions:
            results[drill.name] = Series(where=where, date=date, outcomes=repetitions)
        elif drill.name in recorded:
            results[drill.name] = recorded[drill.name]
    return results


def page(drills: Sequence[PodDrill], recorded: Mapping[str, Series]) -> str:
    """Return RESULTS.md."""
    rows = [row(drill, recorded[drill.name]) for drill in drills if drill.name in recorded]
    promises = markdown_table(PROMISE_HEADINGS, [promise(drill) for drill in drills])
    return PROMISES_PART + promises + RESULTS_PART + (markdown_table(HEADINGS, rows) if rows else NOTHING)


def promise(drill: PodDrill) -> tuple[str, ...]:
    """Return the promises of a drill; the columns are PROMISE_HEADINGS."""
    return (
        f"`{drill.name}`",
        drill.fault,
        f"{drill.recovery_seconds:.0f} s",
        f"{drill.ready_seconds:.0f} s",
        "those on the ended pods" if drill.loses_tries else "none",
    )


def row(drill: PodDrill, series: Series) -> tuple[str, ...]:
    """Return the row of a drill that was measured; the columns are HEADINGS."""
    outcomes = [PodOutcome(**{**outcome, "broken": tuple(outcome["broken"])}) for outcome in series["outcomes"]]
    kept = sum(not outcome.broken for outcome in outcomes)
    return (
        f"`{drill.name}`",
        seconds([outcome.recovery for outcome in outcomes]),
        seconds([outcome.ready_after for outcome in outcomes]),
        str(max(outcome.tries_lost for outcome in outcomes)),
        f"{max(outcome.tasks_lost for outcome in outcomes)} / {max(outcome.run_twice for outcome in outcomes)}",
        f"{kept} of {len(outcomes)} times",
        f"{series['where']}, {series['date']}",
    )


def seconds(times: Sequence[float | None]) -> str:
    """Return the median and the worst of some times; `none` if one is missing."""
    known = [each for each in times if each is not None]
    return f"{statistics.median(known):.1f} s ({max(known):.1f} s)" if len(known) == len(times) else "none"
