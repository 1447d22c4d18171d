"""`logs`: the logs of the services."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ops import compose, settings_file
from ops.errors import StackError
from ops.project import current_project


def logs(
    service: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="Services to show; all unless given.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="New lines as they are written.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Number of last lines of each instance.")] = 100,
) -> None:
    """Show the logs of every service, or of those given.

    Example: ./ops/stack logs scheduler worker --follow --tail 20
    """
    project = current_project()
    if "AIRFLOW_IMAGE" not in settings_file.read(project):
        raise StackError("cannot show logs: there is no stack yet", hint="run ./ops/stack up")
    services = sorted(compose.config(project)["services"])
    unknown = sorted(set(service or []) - set(services))
    if unknown:
        raise StackError(
            f"cannot show logs of {unknown[0]!r}: unknown service", hint=f"choose from: {', '.join(services)}"
        )
    command = compose.command(project, "logs", f"--tail={tail}", *(["--follow"] if follow else []))
    # exec, so that compose itself handles Ctrl-C.
    os.execvpe(command[0], [*command, *(service or [])], compose.environment(project))  # noqa: S606
