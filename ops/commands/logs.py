"""`logs`: what services write."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ops import compose, settings_file
from ops.errors import StackError
from ops.project import current_project


def logs(
    service: Annotated[str | None, typer.Argument(help="One service; all of them unless given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="The last lines of each instance.")] = 100,
) -> None:
    """Show the log of a service, or of all."""
    project = current_project()
    if "AIRFLOW_IMAGE" not in settings_file.read(project):
        raise StackError("there is no stack yet", hint="./ops/stack up starts one")
    known = sorted(compose.config(project)["services"])
    if service is not None and service not in known:
        raise StackError(f"there is no service {service!r}", hint=f"the services are: {', '.join(known)}")
    command = compose.command(project, "logs", f"--tail={tail}", *(["--follow"] if follow else []))
    # In the place of this process, so that Ctrl-C is compose's own affair.
    os.execvpe(command[0], [*command, *([service] if service else [])], compose.environment(project))  # noqa: S606
