"""`doctor`: everything that needs an operator, in order of urgency, each with its command."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ops.doctor.diagnosis import diagnose
from ops.errors import FAILURE
from ops.project import current_project


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the list.")] = False,
) -> None:
    """Check everything and list what needs an operator, the most urgent first, each with its command.

    It changes nothing, and also works while the stack, Docker or Postgres is down. The exit code is 0 if nothing is
    urgent, and 1 if anything is.

    Example: ./ops/stack doctor --json
    """
    diagnosis = diagnose(current_project())
    if as_json:
        typer.echo(json.dumps(asdict(diagnosis), indent=2))
    else:
        typer.echo(diagnosis.text())
    raise typer.Exit(FAILURE if diagnosis.is_urgent else 0)
