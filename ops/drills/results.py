"""What the drills have shown, kept in results.json, and the README's tables of it.

`./ops/stack drill --all --repeat 5 --write` measures, `--stock` the same faults on a stock Airflow.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from ops.ci import readme
from ops.drills.catalogue import DRILLS
from ops.drills.faults import MEANING
from ops.drills.report import recovery
from ops.drills.runner import Outcome
from ops.markdown_table import markdown_table
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS: Final = ROOT / "ops/drills/results.json"
PART: Final = "drills"
"""Of the README."""

MAIN: Final = (
    "scheduler-crash",
    "execution-api-crash",
    "gateway-crash",
    "worker-crash",
    "worker-frozen-120",
    "postgres-primary-crash",
    "postgres-primary-frozen",
    "postgres-nodes-gone",
    "redis-primary-gone",
    "redis-nodes-gone",
    "two-etcd-frozen",
    "host",
)
"""What is shown at first sight; the rest can be unfolded."""
HEADINGS: Final = (
    "fault",
    "recovery, median (worst)",
    "promised",
    "attempts lost",
    "tasks lost / twice",
    "alert",
    "stock Airflow",
)
TWICE: Final = ("tasks_doubled", "overlapping")


class Series(TypedDict):
    """One drill, held so often on one day."""

    machine: str
    date: str
    outcomes: list[dict[str, Any]]


class Result(TypedDict):
    """What is known of a drill: here, and on a stock Airflow."""

    here: NotRequired[Series]
    stock: NotRequired[Series]


def read() -> dict[str, Result]:
    """All that is known, by drill."""
    found: dict[str, Result] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def write(outcomes: Sequence[Outcome], machine: str, date: str, *, stock: bool) -> None:
    """Adds what was measured now to results.json, and brings the README's tables to it."""
    known = merged(read(), outcomes, machine, date, stock=stock)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    readme.fill(PART, section(known))


def merged(
    known: Mapping[str, Result], outcomes: Sequence[Outcome], machine: str, date: str, *, stock: bool
) -> dict[str, Result]:
    """What is known, with a new series in place of an earlier one of the same drill.

    Args:
        known: What was known so far; of drills that there are no more, it is forgotten.
        outcomes: What was measured now.
        machine: On what, for people.
        date: When.
        stock: Whether on a stock Airflow.
    """
    found: dict[str, Result] = {}
    for drill in DRILLS:
        result: Result = {**known.get(drill.name, Result())}
        if now := [asdict(outcome) for outcome in outcomes if outcome.drill == drill.name]:
            result["stock" if stock else "here"] = Series(machine=machine, date=date, outcomes=now)
        if result:
            found[drill.name] = result
    return found


def outcomes_of(series: Series) -> list[Outcome]:
    """A series as it was measured."""
    return [Outcome(**{**one, "broken": tuple(one["broken"])}) for one in series["outcomes"]]


def section(known: Mapping[str, Result]) -> str:
    """What the README says between its markers; empty as long as nothing was measured."""
    rows = {drill.name: row(known[drill.name]) for drill in DRILLS if "here" in known.get(drill.name, {})}
    if not rows:
        return ""
    main = [rows[name] for name in MAIN if name in rows]
    others = [cells for name, cells in rows.items() if name not in MAIN]
    faults = {drill.fault for drill in DRILLS if drill.name in rows}
    headings: tuple[str, ...] = HEADINGS
    if not any("stock" in result for result in known.values()):
        main, others, headings = [cells[:-1] for cells in main], [cells[:-1] for cells in others], HEADINGS[:-1]
    meaning = [f"*{fault}*: {meaning}" for fault, meaning in MEANING.items() if fault in faults]
    parts = [markdown_table(headings, main)] if main else []
    if others:
        table = markdown_table(headings, others)
        parts.append(f"<details><summary>{len(others)} more faults</summary>\n\n{table}\n</details>\n")
    parts.append(f"{measured(known)} {'; '.join(meaning)}.\n")
    return "\n" + "\n".join(parts) + "\n"


def row(result: Result) -> tuple[str, ...]:
    """A drill's row."""
    of = outcomes_of(result["here"])
    drill = next(drill for drill in DRILLS if drill.name == of[0].drill)
    kept = sum(not outcome.broken for outcome in of)
    alerts = sorted({alert for outcome in of for alert in outcome.alerts})
    stock = outcomes_of(result["stock"]) if "stock" in result else []
    return (
        drill.sentence,
        recovery(of),
        f"{drill.deadline:.0f} s" if kept == len(of) else f"{drill.deadline:.0f} s; kept {kept} of {len(of)} times",
        worst(of, "attempts_lost"),
        f"{worst(of, 'tasks_lost')} / {worst(of, *TWICE)}",
        ", ".join(alerts) or "none",
        cost(stock) if stock else "",
    )


def cost(of: Sequence[Outcome]) -> str:
    """What a fault cost, in a few words."""
    lost = {
        "attempts lost": worst(of, "attempts_lost"),
        "tasks lost": worst(of, "tasks_lost"),
        "tasks twice": worst(of, *TWICE),
    }
    return ", ".join([recovery(of), *(f"{count} {what}" for what, count in lost.items() if count != "0")])


def worst(of: Sequence[Outcome], *what: str) -> str:
    """The highest of a count, or of the sum of some."""
    return str(max(sum(getattr(outcome, one) for one in what) for outcome in of))


def measured(known: Mapping[str, Result]) -> str:
    """On what, when and how often."""
    series = [one for result in known.values() for one in (result.get("here"), result.get("stock")) if one]
    machines = " and ".join(sorted({one["machine"] for one in series}))
    times = sorted({len(one["outcomes"]) for one in series})
    often = " to ".join("once" if count == 1 else f"{count} times" for count in dict.fromkeys((times[0], times[-1])))
    last = max(one["date"] for one in series)
    return f"Measured by `./ops/stack drill` on {machines}, each {often}, last on {last}."
