"""`scale`: more or fewer instances of a service, while it works."""

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
    instances: Annotated[list[str], typer.Argument(metavar="SERVICE=N...", help="For instance worker=4.")],
) -> None:
    """Run more or fewer instances of a service.

    The number is kept in .env. A worker that is taken away takes no new task and finishes those it has; this waits for
    it.
    """
    project = current_project()
    own_workers = compose_override.own_workers(project)
    wanted = dict(parse_scale(argument, own_workers) for argument in instances)
    with when_interrupted("the number is kept: ./ops/stack up finishes it"), stack_lock(project, "scale", report):
        running_settings(project, hint="./ops/stack up --scale " + " --scale ".join(instances))
        scaling.scale(project, wanted, report)
