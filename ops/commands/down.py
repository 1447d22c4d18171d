"""`down`: stop the stack; keep its data unless told otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ops import compose, settings_file
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import console, report

if TYPE_CHECKING:
    from ops.project import Project


def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Remove the data too: database, queues, logs, artifacts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before data is removed.")] = False,
) -> None:
    """Stop the stack and remove its containers.

    Workers finish their tasks first. The data stays; with --volumes it goes, and workers are not waited for. Secrets
    and .env stay in either case.
    """
    project = current_project()
    with when_interrupted("./ops/stack down goes on from here"), stack_lock(project, "down", report):
        settings = settings_file.read(project)
        name = settings["COMPOSE_PROJECT_NAME"]
        if "AIRFLOW_IMAGE" not in settings:
            if left := compose.instances(name):
                raise StackError(
                    f"{project.shown(project.env_file)} is gone, but these are still there: {', '.join(left)}",
                    where=name,
                    hint="./ops/stack up writes it again; then ./ops/stack down",
                )
            report("there is no stack to stop")
            return
        if not volumes:
            remove(project, name)
            report(f"stopped; the data stays in {', '.join(compose.volumes(name)) or 'no volume'}")
            return
        doomed = compose.volumes(name)
        console.print(f"This removes for ever: {', '.join(doomed) or 'no volume, there is none'}", soft_wrap=True)
        if not yes:
            if not sys.stdin.isatty():
                raise StackError("nobody is there to confirm that the data may go", hint="add --yes")
            typer.confirm("Go on?", abort=True)
        remove(project, name, "--volumes", "--timeout=5")
        report(f"stopped; the data is gone. {project.shown(project.secrets)} and .env stay, for the next up")


def remove(project: Project, name: str, *options: str) -> None:
    """Remove the containers of a compose project, and the nameless volumes that only they had."""
    with compose.without_leftover_volumes(name):
        compose.run(project, report, "--profile=*", "down", "--remove-orphans", *options)
