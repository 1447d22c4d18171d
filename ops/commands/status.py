"""`status`: what runs, how it is, and where to open it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ops import status as stack_status
from ops.errors import FAILURE
from ops.project import current_project
from ops.status_tables import print_status


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show every service with its instances, the DAG files that do not import, and the URLs.

    Exits with 0 when the stack is ready: every service has its instances, and all are healthy.
    """
    found = stack_status.collect(current_project())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_status(found)
    raise typer.Exit(0 if found["ready"] else FAILURE)
