"""`down`: stop the stack; keep its data unless `--volumes` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops import compose, rotation_state, settings_file
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import ask_to_confirm, console, report
from ops.services import BACKUP_VOLUME

if TYPE_CHECKING:
    from ops.project import Project


def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also delete the data: database, queues, logs, artifacts. Not backups.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="No confirmation before data is deleted.")] = False,
) -> None:
    """Stop the stack and remove its containers.

    Workers finish their tasks first, and the data is kept. With --volumes the data is deleted and workers are stopped
    after 5 s. Secrets, .env and backups are always kept.

    Example: ./ops/stack down --volumes --yes
    """
    project = current_project()
    with when_interrupted("run ./ops/stack down again to continue"), stack_lock(project, "down", report):
        settings = settings_file.read(project)
        name = settings["COMPOSE_PROJECT_NAME"]
        if "AIRFLOW_IMAGE" not in settings:
            refuse_lost_settings(project, name)
            report("there is no stack to stop")
        elif not volumes:
            remove(project, name)
            report(f"stopped; the data stays in {', '.join(compose.volumes(name)) or 'no volume'}")
        else:
            data = [volume for volume in compose.volumes(name) if volume != f"{name}_{BACKUP_VOLUME}"]
            confirm_deletion(data, is_confirmed=yes)
            remove(project, name, "--timeout=5")
            if data:
                compose.docker("volume", "rm", *data)
            rotation_state.abandon(project)
            kept = [*compose.volumes(name), project.shown(project.secrets), ".env"]
            report(f"stopped; the data is deleted. {' and '.join(kept)} stay for the next up")


def refuse_lost_settings(project: Project, name: str) -> None:
    """Refuse to stop containers without the .env that they were started with.

    Raises:
        StackError: Containers of the stack exist.
    """
    if remaining := compose.instances(name):
        raise StackError(
            f"cannot stop the stack: {project.shown(project.env_file)} is missing, but containers exist of "
            f"{', '.join(remaining)}",
            where=name,
            hint="run ./ops/stack up, which writes the file again, then ./ops/stack down",
        )


def confirm_deletion(volumes: list[str], *, is_confirmed: bool) -> None:
    """List the volumes to delete, and ask for confirmation unless it was given.

    Raises:
        StackError: There is no terminal for the question.
        typer.Abort: The user declined.
    """
    console.print(f"This deletes permanently: {', '.join(volumes) or 'no volume, there is none'}", soft_wrap=True)
    if is_confirmed:
        return
    ask_to_confirm("Continue?")


def remove(project: Project, name: str, *options: str) -> None:
    """Remove the containers of a compose project, and the anonymous volumes that only they used."""
    with compose.without_leftover_volumes(name):
        compose.run(project, report, "--profile=*", "down", "--remove-orphans", *options)
