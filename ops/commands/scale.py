"""`scale`: change the number of instances of a service without downtime."""

from __future__ import annotations

from typing import Annotated

import typer

from ops import compose_override, scaling
from ops.compose import running_settings
from ops.errors import when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.scaling import parse_scale
from ops.screen import report


def scale(
    instances: Annotated[
        list[str], typer.Argument(metavar="SERVICE=N...", help="Services with their number of instances.")
    ],
) -> None:
    """Change the number of instances of services.

    The numbers are kept in .env. A surplus worker takes no new task and finishes its running tasks before it stops;
    the command waits for it.

    Example: ./ops/stack scale worker=4 scheduler=3
    """
    project = current_project()
    own_workers = compose_override.own_workers(project)
    replicas = dict(parse_scale(argument, own_workers) for argument in instances)
    hint = "run ./ops/stack up to complete it: the numbers are kept in .env"
    with when_interrupted(hint), stack_lock(project, "scale", report):
        running_settings(project, hint="run ./ops/stack up --scale " + " --scale ".join(instances))
        scaling.scale(project, replicas, report)
