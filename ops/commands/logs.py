"""`logs`: the logs of the services."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ops import compose, settings_file
from ops.errors import StackError
from ops.project import current_project


def logs(
    service: Annotated[str | None, typer.Argument(help="One service; all services unless given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="New lines as they are written.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Number of last lines of each instance.")] = 100,
) -> None:
    """Show the log of a service, or of all services.

    Example: ./ops/stack logs scheduler --follow --tail 20
    """
    project = current_project()
    if "AIRFLOW_IMAGE" not in settings_file.read(project):
        raise StackError("cannot show logs: there is no stack yet", hint="run ./ops/stack up")
    services = sorted(compose.config(project)["services"])
    if service is not None and service not in services:
        raise StackError(
            f"cannot show logs of {service!r}: unknown service", hint=f"choose from: {', '.join(services)}"
        )
    command = compose.command(project, "logs", f"--tail={tail}", *(["--follow"] if follow else []))
    # exec, so that compose itself handles Ctrl-C.
    os.execvpe(command[0], [*command, *([service] if service else [])], compose.environment(project))  # noqa: S606
