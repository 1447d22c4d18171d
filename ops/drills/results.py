"""The recorded results of the drills: results.json, its page RESULTS.md, and the failover table in README.md.

`./ops/stack drill --all --repeat 5 --write` measures them; with `--stock` it measures a stock Airflow.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from ops.ci import readme
from ops.drills.catalogue import DRILLS
from ops.drills.evaluate import Outcome
from ops.drills.faults import MEANING
from ops.drills.report import recovery
from ops.markdown_table import markdown_table
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS: Final = ROOT / "ops/drills/results.json"
PAGE: Final = ROOT / "ops/drills/RESULTS.md"
PART: Final = "drills"
"""The part of README.md that holds the failover table."""

FAILURES: Final = {
    "scheduler-crash": "A scheduler crashes",
    "worker-crash": "A worker crashes",
    "worker-frozen-120": "A worker freezes for 2 minutes",
    "execution-api-crash": "An Execution API server crashes",
    "gateway-crash": "The gateway crashes",
    "postgres-crash": "The single Postgres crashes",
    "redis-crash": "The single Redis crashes",
    "postgres-primary-gone": "The Postgres primary goes down, with `up --ha`",
    "redis-primary-gone": "The Redis primary goes down, with `up --ha`",
    "host-gone": "Both primaries, a scheduler, a worker and one of each API server go down together, with `up --ha`",
}
"""The rows of the README's failover table, by drill."""
FAILURE_HEADINGS: Final = ("failure", "recovery", "tasks lost")
HEADINGS: Final = (
    "drill",
    "fault",
    "recovery, median (worst)",
    "promised",
    "attempts lost",
    "tasks lost / run twice",
    "alerts",
    "stock Airflow",
)
RUN_TWICE: Final = ("tasks_doubled", "overlapping")
INTRODUCTION: Final = """\
# What the drills show

A drill injects one fault into a running stack under load: a stream of short tasks and a few long ones. Each task writes
its start and its end into a ledger outside Airflow. The drill counts there which tasks were lost or ran twice.
[catalogue.py](catalogue.py) holds each drill's promises.

`./ops/stack drill --write` writes this page from [results.json](results.json).

## Run a drill

```sh
./ops/stack drill                            # list all drills and what they promise
./ops/stack drill worker-crash               # inject this fault into the running stack
./ops/stack drill --all --repeat 5 --write   # measure all drills that this stack and this machine support
./ops/stack drill host --stock               # inject the same fault into a stock Airflow, started for it
```

Drills of the single Postgres and Redis need the default profiles; drills of primaries and replicas need `up --ha`.

## Read the table

- **fault**: its kind, its targets and its duration. A fault without a duration is reverted at once.
- **recovery**: how long no short task completed after the fault, including the normal time between two completions.
  Where all instances are down, the time counts from the revert. Where a worker is lost, it is the time until the
  worker's tasks run elsewhere.
- **promised**: the limit for the recovery. `kept 4 of 5 times` means that one repetition broke a promise.
- **attempts lost**: task tries that started and did not count. Only tries on a lost worker may be lost.
- **tasks lost / run twice**: tasks that never completed, and tasks that completed twice or ran twice at the same time.
  A worker that crashes within a second of a task's last statement has not reported its success: the task may run again.
- **alerts**: the alerts that fired. A drill fails if another alert fires than the fault justifies.
- **stock Airflow**: the recovery of an Airflow with default settings, on one Postgres and one Redis, on the same
  machine. It is empty if that was not measured, or if a stock Airflow has no such component.

Counts are the highest of all repetitions. A drill that was not measured yet has no row. The kinds of fault:

{kinds}

## Results

{measured}

"""


class Series(TypedDict):
    """The repetitions of one drill on one day; an outcome has the attributes of `Outcome` as keys."""

    machine: str
    date: str
    outcomes: list[dict[str, Any]]


class Result(TypedDict):
    """The recorded series of a drill: on this stack, and on a stock Airflow."""

    here: NotRequired[Series]
    stock: NotRequired[Series]


def read() -> dict[str, Result]:
    """Return the recorded results by drill."""
    recorded: dict[str, Result] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return recorded


def write(outcomes: Sequence[Outcome], machine: str, date: str, *, stock: bool) -> None:
    """Add new outcomes to results.json, and write RESULTS.md and the README's table; see `merged` for the arguments."""
    recorded = merged(read(), outcomes, machine, date, stock=stock)
    RESULTS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(recorded), encoding="utf-8")
    readme.fill(PART, failover_table(recorded))


def merged(
    recorded: Mapping[str, Result], outcomes: Sequence[Outcome], machine: str, date: str, *, stock: bool
) -> dict[str, Result]:
    """Return the recorded results with new series in place of earlier ones of the same drill.

    Args:
        recorded: The results so far; those of drills that no longer exist are dropped.
        outcomes: The new outcomes.
        machine: The machine that they were measured on, such as `2 cores and 24 GiB`.
        date: The day, as YYYY-MM-DD.
        stock: Whether they were measured on a stock Airflow.
    """
    results: dict[str, Result] = {}
    for drill in DRILLS:
        result: Result = {**recorded.get(drill.name, Result())}
        if repetitions := [asdict(outcome) for outcome in outcomes if outcome.drill == drill.name]:
            result["stock" if stock else "here"] = Series(machine=machine, date=date, outcomes=repetitions)
        if result:
            results[drill.name] = result
    return results


def outcomes_of(series: Series) -> list[Outcome]:
    """Return the outcomes of a recorded series."""
    return [Outcome(**{**outcome, "broken": tuple(outcome["broken"])}) for outcome in series["outcomes"]]


def failover_table(recorded: Mapping[str, Result]) -> str:
    """Return the README's failover table; empty if none of its drills was measured."""
    rows = [
        (failure, *recovery_and_loss(outcomes_of(recorded[drill]["here"])))
        for drill, failure in FAILURES.items()
        if "here" in recorded.get(drill, {})
    ]
    return f"\n{markdown_table(FAILURE_HEADINGS, rows)}\n" if rows else ""


def recovery_and_loss(repetitions: Sequence[Outcome]) -> tuple[str, str]:
    """Return the median recovery, with the worst one if there are several, and the highest number of lost tasks."""
    times = [outcome.recovery for outcome in repetitions if outcome.recovery is not None]
    if len(times) < len(repetitions):
        return "none", worst(repetitions, "tasks_lost")
    longest = f", worst {max(times):.1f} s" if len(times) > 1 else ""
    return f"{statistics.median(times):.1f} s{longest}", worst(repetitions, "tasks_lost")


def page(recorded: Mapping[str, Result]) -> str:
    """Return RESULTS.md."""
    measured_drills = [drill for drill in DRILLS if "here" in recorded.get(drill.name, {})]
    kinds = {drill.fault for drill in measured_drills}
    introduction = INTRODUCTION.format(
        kinds="\n".join(f"- *{kind}*: {meaning}" for kind, meaning in MEANING.items() if kind in kinds),
        measured=measured(recorded),
    )
    return introduction + markdown_table(HEADINGS, [row(recorded[drill.name]) for drill in measured_drills])


def row(result: Result) -> tuple[str, ...]:
    """Return the row of a drill that was measured on this stack; the columns are HEADINGS."""
    repetitions = outcomes_of(result["here"])
    drill = next(drill for drill in DRILLS if drill.name == repetitions[0].drill)
    kept = sum(not outcome.broken for outcome in repetitions)
    alerts = sorted({alert for outcome in repetitions for alert in outcome.alerts})
    return (
        f"`{drill.name}`",
        drill.sentence,
        recovery(repetitions),
        f"{drill.deadline:.0f} s" + ("" if kept == len(repetitions) else f"; kept {kept} of {len(repetitions)} times"),
        worst(repetitions, "attempts_lost"),
        f"{worst(repetitions, 'tasks_lost')} / {worst(repetitions, *RUN_TWICE)}",
        ", ".join(alerts) or "none",
        cost(outcomes_of(result["stock"])) if "stock" in result else "",
    )


def cost(repetitions: Sequence[Outcome]) -> str:
    """Return what a fault cost in a few words, such as `301.9 s (301.9 s), 4 attempts lost`."""
    losses = {
        "attempts lost": worst(repetitions, "attempts_lost"),
        "tasks lost": worst(repetitions, "tasks_lost"),
        "tasks run twice": worst(repetitions, *RUN_TWICE),
    }
    return ", ".join([recovery(repetitions), *(f"{count} {loss}" for loss, count in losses.items() if count != "0")])


def worst(repetitions: Sequence[Outcome], *attributes: str) -> str:
    """Return the highest of a count, or of the sum of several counts."""
    return str(max(sum(getattr(outcome, attribute) for attribute in attributes) for outcome in repetitions))


def measured(recorded: Mapping[str, Result]) -> str:
    """Return a sentence on the machine, the number of repetitions and the last day."""
    series = [each for result in recorded.values() for each in (result.get("here"), result.get("stock")) if each]
    if not series:
        return "Nothing was measured yet."
    machines = " and ".join(sorted({each["machine"] for each in series}))
    counts = sorted({len(each["outcomes"]) for each in series})
    often = " to ".join("once" if count == 1 else f"{count} times" for count in dict.fromkeys((counts[0], counts[-1])))
    last = max(each["date"] for each in series)
    return f"Measured on {machines}, each drill {often}, last on {last}."
