"""The kept results of benches (results.json), and the page and the picture generated from them."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from airflow_ha.sizes import GIB
from ops import compose
from ops.bench import scaling_advice
from ops.bench.benches import FAN_OUTS, GOALS, QUEUED, UI_LOAD, Goal, delay_figure, rate_figure
from ops.bench.comparisons import SUMMARIES
from ops.bench.statistics import (
    Result,
    Spread,
    figure_values,
    paired_ratio,
    spread,
    table_headings,
    table_rows,
)
from ops.bench.targets import OURS, STOCK
from ops.images.versions import read_images_env, software_version
from ops.markdown_table import markdown_table
from ops.services import BACKUP, BACKUP_PROFILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ops.project import Project

FOLDER: Final = Path(__file__).parent
DATA: Final = FOLDER / "results.json"
PAGE: Final = FOLDER / "RESULTS.md"
PICTURE: Final = FOLDER / "results.svg"

INTRODUCTION: Final = """\
# Bench results

Written by `./ops/stack bench --all --stock --write` from [results.json](results.json). Figures are medians over the
rounds, with minimum and maximum in brackets. A ratio is the median of the ratios of each round. The two targets take
turns on one machine: while one is measured, the other is frozen. *{ours}* is this stack with its telemetry on.
*{stock}* is Airflow as its official compose file configures it, on the same images, with two schedulers and two
workers ([compose/stock](../../compose/stock/compose.yaml)).

{conditions}
"""
NOTES: Final[Mapping[str, str]] = {
    "fanout": """\
With all slots, the processor is the limit for both targets. A stock Airflow holds a slot for up to 5 s after its task
has ended, but with 32 slots others are free. What remains is the CPU time of a task, and both targets run the same
Airflow code for that. This stack saves CPU time and spends a part of it on metrics, traces, alerts, the gateway and an
API server for users that cannot stall tasks. A stock Airflow has none of these. The goal of 0.6 times the CPU a task is
little more than what the worker and the Execution API use alone ([cost](#cost)). With 100 tasks, two other things count
as much as the tasks: the start of the run, and whatever else the machine does in those 15 s. The ratios depend on the
machine. On one with slower cores (2026-11-27, 5 rounds), 1,000 tasks had 1.49 times the rate and 0.639 times the CPU of
a stock Airflow: 6.07 and 4.03 tasks/s, 0.284 and 0.446 CPU-seconds a task.
""",
    "slots": """\
The processor is the limit here, not the slots: 300 times the CPU time of a task ([cost](#cost)) is more than four
fifths of the capacity of two cores in that time. A stock Airflow waits up to 5 s a task for a slot whose task has
ended. So faster cores help this stack and not a stock one, and slower cores the reverse. On a day with faster cores the
ratio was 0.398.
""",
    "queue": """\
Before [skip_idle_dag_runs](../../src/airflow_ha/patches/skip_idle_dag_runs.py), the p95 here was 2.2 s with 10,000
queued tasks, 18 times the p95 with 100, because a scheduler loaded all 10,000 in each scheduler loop. The remaining
delay was up to 1.7 s: a scheduler had scheduled the task, found the pools locked by the other scheduler, and slept
([scheduler_notify_wakeup](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).
""",
    UI_LOAD: """\
Under CPU contention the UI/REST API gets a quarter of the default CPU weight
([cpu_shares](../../compose/airflow.yaml)), so UI traffic waits while tasks need the processor. With the default weight
the fan-out was slowed 2.21 times. A stock Airflow has one API server for UI traffic and tasks.
""",
    "commits": """\
The completion of a task is one commit with a NOTIFY
([scheduler_notify_wakeup](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)). All such commits share one lock of
Postgres, and each holds it until it is on disk, and on the replica's disk. The last column therefore limits the
completions a second of the whole stack, whatever is scaled. A replica on another machine adds the network round trip to
each commit.
""",
    "cost": """\
How a no-op task spends its CPU time, and what limits it (2026-11-26, a fan-out of 300; measured with /proc/PID/stat,
perf and py-spy):

- The shares below are from a day on which a task cost 215 ms. On the day of the table above the same code cost more:
  the speed of a core varies by a third here, for both targets. The saving of a patch was measured with and without it,
  side by side in the same fan-outs.
- Worker: 100 ms, half of it in the kernel. A task is a process that is forked from a process of 160 MB. The kernel
  copies and discards its page tables (17 ms). Parent and child fault on the pages that they share (28 ms, 4,000 faults
  in the supervisor alone, spread over all it does), because Python writes a reference count into each object that it
  reads. The rest is the parse of the DAG file (10 ms; 15 ms before
  [prepare_task_fork](../../src/airflow_ha/patches/prepare_task_fork.py)), four calls of the Execution API (8 ms), the
  task's span, logging, and Celery's result. The worker's total was 105 ms before
  [skip_empty_param_schema](../../src/airflow_ha/patches/skip_empty_param_schema.py) and the single statement of
  [result_backend](../../src/airflow_ha/result_backend.py).
- Tried and not kept, because it changes Python's memory management: constant reference counts, as at Instagram, halve
  the faults and saved 1 of the 9 ms in which the DAG is parsed. Huge pages before the fork (MADV_COLLAPSE, from Linux
  6.1 on) saved 5 of 14 ms in an experiment. Settings alone saved nothing: huge pages by the C library (126 ms, 124 ms
  on the worker beside it), cached bytecode of DAG files and memory that is never freed (141 and 133 ms).
- Execution API: 40 ms for four calls. It was a fifth more before
  [inline_api_middleware](../../src/airflow_ha/patches/inline_api_middleware.py) and
  [open_session_on_event_loop](../../src/airflow_ha/patches/open_session_on_event_loop.py). Three more patches were
  removed, because each saved at most 1% of a task's CPU (`bench patches`): one resolved the dependencies of a call
  once, one cached the output of the commands in settings, one delayed the span export thread of a task process. What
  remains is the resolution of each call's dependencies, the token, which is checked twice (6%), and SQLAlchemy's
  cache keys of statements that are the same every time (6%).
- Postgres: 23 ms. A third executes statements, a fifth plans them, a seventh parses them and resolves their tables, a
  tenth sends results. Schedulers: 20 ms, 30 ms before
  [skip_idle_dag_runs](../../src/airflow_ha/patches/skip_idle_dag_runs.py). Half of it loads all tasks of the run in
  each scheduler loop.
- Everything that runs without a load too: 35 ms at eight tasks a second. Those are 24 containers; the nine of a stock
  Airflow use as much.
- Outside all containers, and in no table: Docker starts 1.4 probes a second, 70 ms each. At first there were 2.6, a
  sixth of what two busy cores did, and then 1.8, a twelfth, plus half as much again for Python's start in them.
""",
}
"""Findings below a bench's table, each from a single analysis with a profiler."""
KERNEL: Final = "kernel"
"""The only condition that may differ between the results on one page: a machine may boot another kernel build."""
PICTURE_LINE: Final = "![Tasks per second and the delay of a first task, by size](results.svg)\n"


def read_conditions(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the machine's size, the versions of the software that runs on it, and the profiles.

    The profile `backup` is no condition of other benches: its own compares a stack with itself.
    """
    profiles = settings["COMPOSE_PROFILES"].split(",")
    services = compose.instances(settings["COMPOSE_PROJECT_NAME"])

    def version(names: Sequence[str], *command: str) -> str:
        running = compose.in_state(services, "running", names)
        return compose.docker("exec", running[0].id, *command).strip() if running else "elsewhere"

    memory = psutil.virtual_memory().total / GIB
    return {
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB",
        KERNEL: f"{platform.system()} {platform.release()}",
        "Docker": compose.docker("version", "--format={{.Server.Version}}").strip(),
        "Airflow": software_version(read_images_env(project.root)["AIRFLOW_BASE_IMAGE"]),
        "Postgres": version(("postgres", "patroni-1"), "postgres", "--version"),
        "Redis": version(("redis", "redis-1"), "redis-server", "--version").partition(" sha=")[0],
        "profiles": ",".join(each for each in profiles if each not in (BACKUP, *BACKUP_PROFILES.values())),
    }


def merge(
    kept: Mapping[str, Any], results: Sequence[Result], conditions: Mapping[str, str], day: str
) -> dict[str, Any]:
    """Return the kept results, with new ones replacing those of the same bench.

    Args:
        kept: Content of results.json; empty if there is none.
        results: New results.
        conditions: Machine and versions. Kept results with other conditions are dropped, since no table compares two
            machines; only the kernel may differ, and is noted with each result.
        day: Date of the new results.
    """
    lasting = {name: value for name, value in conditions.items() if name != KERNEL}
    old = kept.get("benches", {}) if kept.get("conditions") == lasting else {}
    new = {result.bench: asdict(result) | {"day": day, KERNEL: conditions[KERNEL]} for result in results}
    merged = old | new
    return {"conditions": lasting, "benches": {name: merged[name] for name in SUMMARIES if name in merged}}


def parse_results(data: Mapping[str, Any]) -> list[Result]:
    """Return the results in the content of results.json."""
    return [Result(bench["bench"], bench["samples"], bench["base"]) for bench in data["benches"].values()]


def goal_row(goal: Goal, results: Mapping[str, Result]) -> list[str] | None:
    """Return a goal's row; None if its figure was not measured."""
    by_variant = results[goal.bench].samples if goal.bench in results else {}
    samples, base = by_variant.get(goal.variant, []), by_variant.get(goal.base, [])
    value, base_value = (spread(figure_values(variant, goal.figure)) for variant in (samples, base))
    ratio = paired_ratio(samples, base, goal.figure)
    judged = ratio if goal.kind == "ratio" else value
    if judged is None:
        return None
    return [
        goal.title,
        *("" if cell is None else str(cell) for cell in (value, base_value, ratio)),
        str(goal),
        "yes" if goal.is_met(judged.high if goal.kind == "worst" else judged.median) else "no",
    ]


GOAL_HEADINGS: Final = ("", OURS, STOCK, f"{OURS} ÷ {STOCK}", "goal", "reached")


def goal_rows(results: Sequence[Result]) -> list[list[str]]:
    """Return a row for each goal whose figure was measured."""
    by_name = {result.bench: result for result in results}
    return [row for goal in GOALS if (row := goal_row(goal, by_name))]


def render_page(data: Mapping[str, Any]) -> str:
    """Return the content of RESULTS.md."""
    results = parse_results(data)
    conditions = "\n".join(f"- {name}: {value}" for name, value in data["conditions"].items())
    parts = [INTRODUCTION.format(ours=OURS, stock=STOCK, conditions=conditions)]
    if goals := goal_rows(results):
        parts.append(f"## At a glance\n\n{markdown_table(GOAL_HEADINGS, goals)}")
    if plotted_points(results):
        parts.append(PICTURE_LINE)
    for result in results:
        rounds = min(len(samples) for samples in result.samples.values())
        measured = ", ".join(data["benches"][result.bench][name] for name in ("day", KERNEL))
        count = f"{rounds} {'round' if rounds == 1 else 'rounds'}"
        title = f"## {result.bench}\n\n{SUMMARIES[result.bench]} {count}, {measured}.\n"
        parts.append(f"{title}\n{markdown_table(table_headings(result), table_rows(result))}")
        if result.bench in NOTES:
            parts.append(NOTES[result.bench])
    parts.append(scaling_advice.section(results))
    return "\n".join(parts)


def plotted_points(results: Sequence[Result]) -> dict[str, dict[str, list[tuple[int, Spread]]]]:
    """Return the points of the picture: (size, figure) by panel and variant."""
    panels = {"fanout": ("tasks a second", FAN_OUTS, rate_figure), "queue": ("seconds, p95", QUEUED, delay_figure)}
    points: dict[str, dict[str, list[tuple[int, Spread]]]] = {}
    for result in results:
        if result.bench in panels:
            unit, sizes, figure = panels[result.bench]
            points[f"{result.bench}: {unit}"] = {
                variant: [(size, values) for size in sizes if (values := spread(figure_values(samples, figure(size))))]
                for variant, samples in result.samples.items()
            }
    return points


def draw(results: Sequence[Result], path: Path) -> None:
    """Plot throughput and delay with their spread against size; the file depends on the results only."""
    import matplotlib as mpl

    mpl.use("Agg")  # no screen
    mpl.rcParams["svg.hashsalt"] = "results"
    from matplotlib.figure import Figure

    from ops.dashboards.draw import INK, LINES

    panels = plotted_points(results)
    figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained")
    for axes, (title, variants) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, (variant, points) in zip(LINES, variants.items(), strict=False):
            sizes = [size for size, _ in points]
            medians = [values.median for _, values in points]
            below = [values.median - values.low for _, values in points]
            above = [values.high - values.median for _, values in points]
            axes.errorbar(sizes, medians, yerr=[below, above], marker="o", capsize=3, color=colour, label=variant)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xscale("log")
        axes.set_xlabel("tasks")
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})


def write(project: Project, settings: Mapping[str, str], results: Sequence[Result]) -> None:
    """Merge results into results.json, and generate the page and the picture."""
    kept = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    data = merge(kept, results, read_conditions(project, settings), f"{datetime.now(tz=UTC):%Y-%m-%d}")
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    publish(data)


def publish(data: Mapping[str, Any]) -> None:
    """Generate the page and the picture from the content of results.json."""
    PAGE.write_text(render_page(data), encoding="utf-8")
    if plotted_points(parse_results(data)):
        draw(parse_results(data), PICTURE)
