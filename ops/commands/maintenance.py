"""`maintenance`: remove what is older than the limits of retention, or show it."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.compose import running_settings
from ops.errors import when_interrupted
from ops.maintenance import run, running_container
from ops.project import current_project
from ops.screen import ask_to_confirm, console


def maintenance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="No list and no confirmation before.")] = False,
) -> None:
    """Remove rows, logs and artifacts that are older than their limits, RETENTION_* in .env.

    The service `maintenance` does this every night. Where it first started on a database with old rows, it waits until
    this command has run once.

    Example: ./ops/stack maintenance --dry-run
    """
    container = running_container(running_settings(current_project())["COMPOSE_PROJECT_NAME"]).id
    with when_interrupted("run ./ops/stack maintenance --dry-run to see what is left; a removal that began continues"):
        if dry_run or not yes:
            console.print("This is older than its limit:")
            run(container, "dry-run")
        if dry_run:
            return
        if not yes:
            ask_to_confirm("Remove it permanently, now and from now on every night?")
        run(container, "run")
