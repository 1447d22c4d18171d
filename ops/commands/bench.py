"""`bench`: what this very stack can do, beside a stock Airflow on the same machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from ops.bench import bench_runner
from ops.bench.benches import BENCHES
from ops.bench.comparisons import COMPARISONS, SENTENCES
from ops.bench.statistics import Result, headings, rows
from ops.compose import running_settings
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import console, error_console, escape, heading
from ops.screen import report as progress

ROUNDS = 5


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="Beside a stock Airflow, brought up for it on the same images, in turn.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each is measured.")] = ROUNDS,
    as_json: Annotated[bool, typer.Option("--json", help="The samples as JSON.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Put the results into ops/bench/RESULTS.md.")] = False,
) -> None:
    """Measure the running stack, and with --stock an Airflow as it comes, in turn.

    Medians over the rounds, with the least and the greatest; ratios round by round. While one side works the other is
    frozen. Alerts are muted meanwhile. Everything that is made for it is removed again.
    """
    if not names and not every:
        list_benches()
        return
    benches, comparisons = bench_runner.choose(BENCHES, COMPARISONS, names or [], every=every)
    if write and benches and not stock:
        raise StackError("what is kept is a comparison", where="--write", hint="add --stock")
    # The answer alone is on standard output.
    say = (lambda line: error_console.print(line, markup=False)) if as_json else progress
    project = current_project()
    taken: dict[str, dict[str, list[dict[str, float]]]] = {}
    with when_interrupted("./ops/stack status shows whether all is well"), stack_lock(project, "bench", say):
        settings = running_settings(project, hint="./ops/stack up")
        if write and benches:
            bench_runner.check_alike(settings)
        try:
            bench_runner.conduct(benches, comparisons, project, settings, taken, say, rounds=rounds, beside_stock=stock)
        finally:
            # What was measured counts, also when the next could not be.
            found = bench_runner.results(taken)
            if as_json:
                typer.echo(json.dumps([asdict(result) for result in found], indent=2))
            else:
                show(found)
        if write:
            from ops.bench import bench_results

            bench_results.write(project, settings, found)


def show(found: list[Result]) -> None:
    """A table a bench."""
    for result in found:
        heading(result.bench)
        table = Table(*headings(result))
        for row in rows(result):
            table.add_row(*map(escape, row))
        console.print(table)


def list_benches() -> None:
    """What there is to choose from."""
    table = Table("bench", "what is measured")
    for row in SENTENCES.items():
        table.add_row(*row)
    console.print(table)
