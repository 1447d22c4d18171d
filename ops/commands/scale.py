"""`scale`: more or fewer instances of a service, while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops import compose_override, scaling, status
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import MAX_INSTANCES, SCALABLE, current_project
from ops.screen import report

if TYPE_CHECKING:
    from collections.abc import Collection


def parse_scale(argument: str, own_workers: Collection[str] = ()) -> tuple[str, int]:
    """`worker=4` as its service and number.

    Args:
        argument: What was asked for.
        own_workers: The worker services of compose.override.yaml, which scale too.

    Raises:
        StackError: It is not of that form, the service is not one that scales, or the number makes no sense.
    """
    service, equals, number = argument.partition("=")
    if not equals:
        raise StackError(f"{argument!r} is not SERVICE=N", cure="for instance: worker=4")
    known = (*SCALABLE, *own_workers)
    if service not in known:
        raise StackError(f"{service!r} is not a service that scales", cure=f"these do: {', '.join(known)}")
    if not number.isdecimal() or not 1 <= int(number) <= MAX_INSTANCES:
        raise StackError(f"{number!r} is not a number of instances", where=argument, cure=f"take 1 to {MAX_INSTANCES}")
    return service, int(number)


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
        status.running_settings(project, cure="./ops/stack up --scale " + " --scale ".join(instances))
        scaling.scale(project, wanted, report)
