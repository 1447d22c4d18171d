"""`bench`: measure the running stack, alone or beside a stock Airflow on the same machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from ops.bench import bench_runner
from ops.bench.benches import BENCHES
from ops.bench.comparisons import COMPARISONS, SUMMARIES
from ops.bench.statistics import Result, table_headings, table_rows
from ops.compose import running_settings
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import console, error_console, escape, heading
from ops.screen import report as show_progress

ROUNDS = 5


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Benches to run; without a name, list them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run all benches.")] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="Start a stock Airflow on the same images and compare with it.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Number of measurements of each bench.")] = ROUNDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the samples as JSON.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Add the results to ops/bench/RESULTS.md.")] = False,
) -> None:
    """Measure the running stack, and with --stock a stock Airflow in turn.

    Results are medians over the rounds, with minimum and maximum. While one target works, the other is frozen. Alerts
    are silenced meanwhile. Everything that a bench creates is removed afterwards.

    Example: ./ops/stack bench latency slots --stock
    """
    if not names and not every:
        list_benches()
        return
    benches, comparisons = bench_runner.select(BENCHES, COMPARISONS, names or [], every=every)
    if write and benches and not stock:
        raise StackError(
            "cannot keep results without a stock Airflow to compare with", where="--write", hint="add --stock"
        )
    # With --json, only the results go to standard output.
    report = (lambda line: error_console.print(line, markup=False)) if as_json else show_progress
    project = current_project()
    samples: dict[str, dict[str, list[dict[str, float]]]] = {}
    with (
        when_interrupted("./ops/stack status shows whether every service is healthy"),
        stack_lock(project, "bench", report),
    ):
        settings = running_settings(project, hint="run ./ops/stack up")
        if write and benches:
            bench_runner.check_comparable(settings)
        plan = bench_runner.Plan(benches, comparisons, rounds, with_stock=stock)
        try:
            bench_runner.run_plan(plan, project, settings, samples, report)
        finally:
            # A failure does not discard the samples before it.
            results = bench_runner.to_results(samples)
            if as_json:
                typer.echo(json.dumps([asdict(result) for result in results], indent=2))
            else:
                show_results(results)
        if write:
            from ops.bench import bench_results

            bench_results.write(project, settings, results)


def show_results(results: list[Result]) -> None:
    """Print a table for each bench."""
    for result in results:
        heading(result.bench)
        table = Table(*table_headings(result))
        for row in table_rows(result):
            table.add_row(*map(escape, row))
        console.print(table)


def list_benches() -> None:
    """Print the name and the summary of each bench."""
    table = Table("bench", "what it measures")
    for row in SUMMARIES.items():
        table.add_row(*row)
    console.print(table)
