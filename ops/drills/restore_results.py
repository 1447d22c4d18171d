"""The recorded results of restore drills: restores.json, and their table in ops/README.md."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypedDict

from ops.ci import readme
from ops.drills.restore_drills import LOST_SECONDS, READY_SECONDS, RESTORE_DRILLS, RestoreOutcome
from ops.markdown_table import markdown_table
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS: Final = ROOT / "ops/drills/restores.json"
PAGE: Final = ROOT / "ops/README.md"
PART: Final = "restores"
"""The part of the page that holds the table."""
HEADINGS: Final = (
    "drill",
    "data tier",
    "repository",
    "runs",
    "rows lost: of the last",
    "ready again after",
    "pipeline run after",
    "promises kept",
)


class Series(TypedDict):
    """The repetitions of one drill on one data tier and one kind of repository; see `RestoreOutcome` for the keys."""

    machine: str
    date: str
    outcomes: list[dict[str, Any]]


Recorded = dict[str, Series]
"""The series by drill, data tier and repository."""


def key(outcome: RestoreOutcome) -> str:
    """Return the key of an outcome's series."""
    return f"{outcome.drill}, {outcome.tier}, {outcome.repository}"


def rows(outcomes: Iterable[RestoreOutcome]) -> list[tuple[str, ...]]:
    """Return one row for each series, in the order of their keys; the columns are HEADINGS."""
    return [row(list(group)) for _, group in groupby(sorted(outcomes, key=order), key)]


def order(outcome: RestoreOutcome) -> tuple[int, str, str]:
    """Return the sort key of an outcome: the catalogue's order, then tier and repository."""
    names = [drill.name for drill in RESTORE_DRILLS]
    return names.index(outcome.drill), outcome.tier, outcome.repository


def row(outcomes: Sequence[RestoreOutcome]) -> tuple[str, ...]:
    """Return the row of a series."""
    first = outcomes[0]
    kept = sum(not outcome.broken for outcome in outcomes)
    return (
        f"`{first.drill}`",
        f"`{first.tier}`",
        first.repository,
        str(len(outcomes)),
        spread([outcome.lost_seconds for outcome in outcomes]),
        spread([outcome.ready_after for outcome in outcomes]),
        spread([outcome.pipeline_after for outcome in outcomes]),
        "yes" if kept == len(outcomes) else f"{kept} of {len(outcomes)} times",
    )


def spread(seconds: Sequence[float | None]) -> str:
    """Return the median and the worst of some times; `never` if one of them did not come."""
    times = [each for each in seconds if each is not None]
    if len(times) < len(seconds):
        return "never"
    return f"{statistics.median(times):.0f} s ({max(times):.0f} s)"


def merged(recorded: Recorded, outcomes: Iterable[RestoreOutcome], machine: str, date: str) -> Recorded:
    """Return the recorded results with new series in place of earlier ones of the same key.

    Args:
        recorded: The results so far.
        outcomes: The new outcomes.
        machine: The machine that they were measured on, such as `2 cores and 24 GiB`.
        date: The day, as YYYY-MM-DD.
    """
    new: Recorded = {}
    for outcome in outcomes:
        new.setdefault(key(outcome), Series(machine=machine, date=date, outcomes=[]))["outcomes"].append(
            asdict(outcome)
        )
    return recorded | new


def read() -> Recorded:
    """Return the recorded results."""
    recorded: Recorded = json.loads(RESULTS.read_text(encoding="utf-8"))
    return recorded


def write(outcomes: Iterable[RestoreOutcome], machine: str, date: str) -> None:
    """Add new outcomes to restores.json, and write the table; see `merged` for the arguments."""
    recorded = merged(read(), outcomes, machine, date)
    RESULTS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    readme.fill(PART, table(recorded), PAGE)


def table(recorded: Recorded) -> str:
    """Return the part of ops/README.md."""
    if not recorded:
        return "\nNothing was measured yet.\n\n"
    outcomes = [RestoreOutcome(**outcome) for series in recorded.values() for outcome in series["outcomes"]]
    sizes = sorted({outcome.gib for outcome in outcomes})
    machines = " and ".join(sorted({series["machine"] for series in recorded.values()}))
    last = max(series["date"] for series in recorded.values())
    return (
        f"\n{markdown_table(HEADINGS, rows(outcomes))}\n"
        f"Median (worst). Promised: rows of the last {LOST_SECONDS:.0f} s at most, and ready within "
        f"{READY_SECONDS / 60:.0f} minutes. Measured on {machines}, last on {last}, with "
        f"{' and '.join(f'{size:g}' for size in sizes)} GiB beside Airflow's database.\n\n"
    )
