"""`autoscale`: add and remove workers with the number of queued and running tasks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from ops import settings_file
from ops.autoscaling.control_loop import ControlLoop, Options
from ops.autoscaling.preparation import check, prepare
from ops.errors import FAILURE, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.services import MAX_INSTANCES
from ops.worker_bounds import CEILING, DEFAULT_FLOOR, FLOOR, SCALE_IN_SECONDS


def autoscale(
    floor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INSTANCES,
            help=f"Fewest workers; kept as {FLOOR} in .env. At first {DEFAULT_FLOOR}.",
            show_default=False,
        ),
    ] = None,
    ceiling: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_INSTANCES, help=f"Most workers; kept as {CEILING} in .env.", show_default=False),
    ] = None,
    scale_in_after: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Time of lower demand before workers are removed.")
    ] = SCALE_IN_SECONDS,
    once: Annotated[
        bool, typer.Option("--once", help="Count and decide once, then exit. Removes no worker for lower demand.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the decisions, and change nothing.")] = False,
) -> None:
    """Add and remove workers with the number of queued and running tasks.

    Runs until it is stopped, and prints a line for each decision. Workers are added at once. They are removed after
    five minutes of lower demand, and each finishes its tasks first. While tasks cannot be counted, nothing changes.

    Example: ./ops/stack autoscale --floor 2 --ceiling 6
    """
    project = current_project()
    chosen = {key: str(value) for key, value in ((FLOOR, floor), (CEILING, ceiling)) if value is not None}
    if dry_run:
        check(project, settings_file.read(project) | chosen)
    else:
        with when_interrupted("run ./ops/stack autoscale again"), stack_lock(project, "autoscale", report):
            prepare(project, chosen, report)
    loop = ControlLoop(project, Options(scale_in_after, dry_run, chosen if dry_run else {}), report)
    with when_interrupted("run ./ops/stack autoscale to go on; a worker that drains stops after its tasks"):
        if not once:
            loop.run()
        elif not loop.step(time.monotonic()):
            raise typer.Exit(FAILURE)


def report(line: str) -> None:
    """Print a line with the time, since the command may run for months."""
    typer.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {line}")
