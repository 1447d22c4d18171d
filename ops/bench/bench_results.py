"""What benches have shown, kept as results.json, and the page and the picture made of it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from ops import compose
from ops.bench import scaling_advice
from ops.bench.benches import FAN_OUTS, GOALS, QUEUED, Goal, delay, tasks_per_second
from ops.bench.comparisons import SENTENCES
from ops.bench.statistics import Result, Spread, headings, ratio, rows, spread, values
from ops.bench.targets import OURS, STOCK
from ops.ci import readme
from ops.images.versions import read_images_env, software_version
from ops.markdown_table import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ops.project import Project

FOLDER: Final = Path(__file__).parent
DATA: Final = FOLDER / "results.json"
PAGE: Final = FOLDER / "RESULTS.md"
PICTURE: Final = FOLDER / "results.svg"
PART: Final = "benches"
"""Of the README."""

INTRODUCTION: Final = """\
# What the benches show

Written by `./ops/stack bench --all --stock --write` from [results.json](results.json). Medians, with the least and the
greatest of the rounds in brackets. A ratio is the median of the rounds' own ratios: the two sides took turns on one
machine, the other frozen meanwhile. *{ours}* is this stack, its telemetry on; *{stock}* is Airflow as its official
compose file sets it up, on the same images, with two schedulers and two workers
([compose/stock](../../compose/stock/compose.yaml)).

{conditions}
"""
NOTES: Final[Mapping[str, str]] = {
    "fanout": """\
On all slots both sides wait for nothing but the processor. A stock Airflow holds a slot for up to 5 s after its task
has ended, but with 32 of them others are free; what remains is what a task costs, and for that both run the same code
of Airflow's. What is saved here pays for metrics, traces, alerts, the gateway and the API that people cannot stall,
none of which a stock Airflow has, and leaves the difference. 0.6 times its CPU a task is little more than the worker
and the Execution API take by themselves ([cost](#cost)). With 1,000 tasks a stock scheduler, which loads all of them in
each round, adds to the difference; with 100 what a run costs before its first task, and whatever else the machine does
in those 15 s, count as much as the tasks.
""",
    "slots": """\
Not the slots are what is waited for here, but the processor: 300 times what a task costs ([cost](#cost)) is more than
four fifths of what two cores did in that time. A stock Airflow waits, up to 5 s a task, for a slot whose task has
ended; faster cores help this stack and not that one, and slower ones the other way round: on a day with faster ones it
was 0.398.
""",
    "queue": """\
Before [skip_idle_dag_runs](../../src/airflow_ha/patches/skip_idle_dag_runs.py) the
p95 here with 10,000 queued was 2.2 s, 18 times
that with 100: a scheduler loaded all 10,000 in each round. What was left, up to 1.7 s, was a scheduler that had made
the task ready, found the pools locked by the other, and slept
([scheduler_notify_wakeup](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).
""",
    "people": """\
With a quarter of the others' share of the processor ([cpu_shares](../../compose/airflow.yaml)) the API of people waits
while tasks need it; before, the fan-out was slowed 2.21 times. A stock Airflow answers people and tasks by one server.
""",
    "commits": """\
A task that ends is one commit with a NOTIFY
([scheduler_notify_wakeup](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).
Postgres takes one lock for those until each is on disk, and on the replica's: the last column bounds the completions a
second of the whole stack, whatever is scaled. A replica elsewhere adds the network's round trip to each commit.
""",
    "cost": """\
What a no-op task's CPU time is made of, and what bounds it (2026-11-26, a fan-out of 300; /proc/PID/stat, perf and
py-spy):

- The shares below are from a day on which a task cost 215 ms, and the rounds above from one on which the same code took
  more: what a core does in a second varies by a third here, for both sides alike. What a work-round saves was measured
  with and without it, side by side in the same fan-outs.
- The worker, 100 ms, half of it in the kernel. A task is a process, forked from one of 160 MB: its page tables are
  copied and thrown away (17 ms), and both fault on the pages they had shared (28 ms; 4,000 times the supervisor alone,
  spread over all it does), since Python writes a count of references into whatever it looks at. The rest is reading
  the DAG's file (10 ms, 15 before
  [prepare_task_fork](../../src/airflow_ha/patches/prepare_task_fork.py)), four calls of the
  Execution API (8 ms), the task's span, logging, and Celery's result. It was 105 ms until
  [skip_empty_param_schema](../../src/airflow_ha/patches/skip_empty_param_schema.py) and
  [upsert_task_result](../../src/airflow_ha/patches/upsert_task_result.py).
- Tried and left, since it takes a hand in Python's memory: to make those counts constant, as Instagram did, halves
  the faults, and saved a millisecond of the nine in which the DAG is read; huge pages before the fork (MADV_COLLAPSE,
  Linux from 6.1 on) saved 5 of 14 ms in a trial. What needs settings only saved nothing: huge pages by the C library
  (126 ms where the worker beside it took 124), bytecode of DAG files kept and memory never given back (141 and 133).
- The Execution API, 40 ms for four calls. A fifth more until
  [inline_api_middleware](../../src/airflow_ha/patches/inline_api_middleware.py) and
  [open_session_on_event_loop](../../src/airflow_ha/patches/open_session_on_event_loop.py).
  Two more patches were removed, because each saved 1% of a task's CPU (`bench patches`, two rounds): one solved a
  call's dependencies once, one kept the answers of the commands in settings. What is left is to solve each call's
  dependencies, the token, checked twice (6%), SQLAlchemy's keys of statements that are the same every time (6%).
- Postgres 23 ms: to run statements a third, to plan them a fifth, to read their text and the tables they name a
  seventh, to send answers a tenth. Schedulers 20 ms, 30 until
  [skip_idle_dag_runs](../../src/airflow_ha/patches/skip_idle_dag_runs.py), half of them for loading all the run's
  tasks each round.
- Everything that runs in any case, 35 ms at eight tasks a second: 24 containers, a stock Airflow's nine take as much.
- Outside all containers, and in no table: Docker starts 1.4 probes a second, 70 ms each. There were 2.6, a sixth of
  what two busy cores did, and then 1.8, a twelfth, with half as much again for the start of Python in them.
""",
}
"""What is said below a bench's table: found once, with a profiler."""
KERNEL: Final = "kernel"
"""The one condition in which results of one page may differ: the same machine's, rebooted into another build of it."""
PICTURE_LINE: Final = "![Tasks per second and the scheduler's delay, by size](results.svg)\n"


def conditions(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """The machine, and the versions that ran on it."""
    found = compose.instances(settings["COMPOSE_PROJECT_NAME"])

    def version(services: Sequence[str], *command: str) -> str:
        ids = [instance.id for instance in compose.in_state(found, "running", services)]
        return compose.docker("exec", ids[0], *command).strip() if ids else "elsewhere"

    memory = psutil.virtual_memory().total / 1024**3
    return {
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB",
        KERNEL: f"{platform.system()} {platform.release()}",
        "Docker": compose.docker("version", "--format={{.Server.Version}}").strip(),
        "Airflow": software_version(read_images_env(project.root)["AIRFLOW_BASE_IMAGE"]),
        "Postgres": version(("postgres", "patroni-1"), "postgres", "--version"),
        "Redis": version(("redis", "redis-1"), "redis-server", "--version").partition(" sha=")[0],
        "profiles": settings["COMPOSE_PROFILES"],
    }


def merged(old: Mapping[str, Any], now: Sequence[Result], where: Mapping[str, str], day: str) -> dict[str, Any]:
    """The kept results with the new ones in their place.

    Args:
        old: what was kept; empty at first.
        now: what was measured.
        where: the machine and the versions; results of others are dropped, since no table compares two machines. A
            kernel is noted with each result, whose sides have taken turns on it.
        day: when.
    """
    lasting = {name: value for name, value in where.items() if name != KERNEL}
    kept = old.get("benches", {}) if old.get("conditions") == lasting else {}
    new = {result.bench: asdict(result) | {"day": day, KERNEL: where[KERNEL]} for result in now}
    return {
        "conditions": lasting,
        "benches": {name: (kept | new)[name] for name in SENTENCES if name in kept | new},
    }


def read(data: Mapping[str, Any]) -> list[Result]:
    """The results of what was kept."""
    return [Result(of["bench"], of["samples"], of["base"]) for of in data["benches"].values()]


def goal_row(goal: Goal, results: Mapping[str, Result]) -> list[str] | None:
    """A goal, and whether it is reached; None where it was not measured."""
    samples = results[goal.bench].samples if goal.bench in results else {}
    here, base = samples.get(goal.side, []), samples.get(goal.base, [])
    mine, theirs = (spread(values(of, goal.figure)) for of in (here, base))
    against = ratio(here, base, goal.figure)
    judged = against if goal.kind == "ratio" else mine
    if judged is None:
        return None
    return [
        goal.what,
        *("" if cell is None else str(cell) for cell in (mine, theirs, against)),
        str(goal),
        "yes" if goal.kept(judged.high if goal.kind == "worst" else judged.median) else "no",
    ]


GOAL_HEADINGS: Final = ("", OURS, STOCK, f"{OURS} ÷ {STOCK}", "goal", "reached")


def goals(results: Sequence[Result]) -> list[list[str]]:
    """The few figures that matter, against what they should be."""
    by_name = {result.bench: result for result in results}
    return [row for goal in GOALS if (row := goal_row(goal, by_name))]


def part(data: Mapping[str, Any]) -> str:
    """What the README says of it."""
    told = f"Medians, with the least and the greatest, on {data['conditions']['machine'].partition(',')[0]}."
    return f"\n{markdown_table(GOAL_HEADINGS, goals(read(data)))}\n{told}\n\n"


def page(data: Mapping[str, Any]) -> str:
    """RESULTS.md."""
    results = read(data)
    told = "\n".join(f"- {name}: {value}" for name, value in data["conditions"].items())
    parts = [INTRODUCTION.format(ours=OURS, stock=STOCK, conditions=told)]
    if summary := goals(results):
        parts.append(f"## At a glance\n\n{markdown_table(GOAL_HEADINGS, summary)}")
    if lines(results):
        parts.append(PICTURE_LINE)
    for result in results:
        rounds = min(len(of) for of in result.samples.values())
        when = ", ".join(data["benches"][result.bench][name] for name in ("day", KERNEL))
        times = f"{rounds} {'round' if rounds == 1 else 'rounds'}"
        title = f"## {result.bench}\n\n{SENTENCES[result.bench]} {times}, {when}.\n"
        parts.append(f"{title}\n{markdown_table(headings(result), rows(result))}")
        if result.bench in NOTES:
            parts.append(NOTES[result.bench])
    parts.append(scaling_advice.section(results))
    return "\n".join(parts)


def lines(results: Sequence[Result]) -> dict[str, dict[str, list[tuple[int, Spread]]]]:
    """What is drawn: by panel and side, a size and its figure."""
    panels = {"fanout": ("tasks a second", FAN_OUTS, tasks_per_second), "queue": ("seconds, p95", QUEUED, delay)}
    found: dict[str, dict[str, list[tuple[int, Spread]]]] = {}
    for result in results:
        if result.bench in panels:
            unit, sizes, figure = panels[result.bench]
            found[f"{result.bench}: {unit}"] = {
                side: [(size, one) for size in sizes if (one := spread(values(of, figure(size))))]
                for side, of in result.samples.items()
            }
    return found


def draw(results: Sequence[Result], path: Path) -> None:
    """Throughput and delay against size, each with its spread; the same file for the same results."""
    import matplotlib as mpl

    mpl.use("Agg")  # no screen
    mpl.rcParams["svg.hashsalt"] = "results"
    from matplotlib.figure import Figure

    from ops.dashboards.draw import INK, LINES

    panels = lines(results)
    figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained")
    for axes, (title, sides) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, (side, points) in zip(LINES, sides.items(), strict=False):
            sizes = [size for size, _ in points]
            medians = [one.median for _, one in points]
            below = [one.median - one.low for _, one in points]
            above = [one.high - one.median for _, one in points]
            axes.errorbar(sizes, medians, yerr=[below, above], marker="o", capsize=3, color=colour, label=side)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xscale("log")
        axes.set_xlabel("tasks")
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})


def write(project: Project, settings: Mapping[str, str], now: Sequence[Result]) -> None:
    """Keeps what was measured, and makes page, picture and the README's part anew."""
    old = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    data = merged(old, now, conditions(project, settings), f"{datetime.now(tz=UTC):%Y-%m-%d}")
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(data), encoding="utf-8")
    readme.fill(PART, part(data))
    if lines(read(data)):
        draw(read(data), PICTURE)
