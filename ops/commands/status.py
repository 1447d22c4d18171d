"""`status`: services, health, DAG import errors and URLs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ops import status as stack_status
from ops.errors import FAILURE
from ops.project import current_project
from ops.status_tables import print_status


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show every service with its instances, the import errors of DAG files, and the URLs.

    The exit code is 0 if the stack is ready: every service has its expected replicas, and all are healthy.

    Example: ./ops/stack status --json
    """
    current = stack_status.collect(current_project())
    if as_json:
        typer.echo(json.dumps(current, indent=2))
    else:
        print_status(current)
    raise typer.Exit(0 if current["ready"] else FAILURE)
