"""Another number of instances of a service, while it works: what `scale` does, under its caller's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ops import (
    compose,
    container_limits,
    preflight,
    settings_file,
    worker_slots,
)
from ops.compose import expected_replicas
from ops.errors import StackError
from ops.observability import generated_config
from ops.rollout import roll_out
from ops.services import MAX_INSTANCES, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ops.project import Project


def scale(project: Project, wanted: Mapping[str, int], report: Callable[[str], None]) -> None:
    """Keeps the numbers in .env, and waits until there are so many, all of them healthy.

    Args:
        project: The stack, which runs.
        wanted: How many instances of which services.
        report: Shows a line to people.

    Raises:
        StackError: They do not become so many; the numbers are kept. Or compose.override.yaml fixes the number of one.
    """
    settings = settings_file.read(project)
    new = {replicas_variable(service): str(count) for service, count in wanted.items()}
    container_limits.check_machine(project, settings | new, preflight.machine_memory())
    # No alert is to miss what is not there yet, or is no longer wanted.
    fewer = {key: str(min(int(count), int(settings[key]))) for key, count in new.items()}
    for count in (fewer, new):
        settings_file.write(project, settings | new)
        generated_config.write(project, settings | count)
        generated_config.load(project, settings["COMPOSE_PROJECT_NAME"])
        if count is fewer:
            model = compose.config(project)
            refuse_fixed_numbers(model, wanted)
            if told := worker_slots.shortage(model):
                report(told)
            # Only these: `migrate`, which everything waits for, need not run again.
            with compose.without_leftover_volumes(settings["COMPOSE_PROJECT_NAME"]):
                roll_out(project, report, "--no-deps", "--no-recreate", *wanted)


def refuse_fixed_numbers(model: Mapping[str, Any], wanted: Mapping[str, int]) -> None:
    """Refuse to scale a service of the operator's own whose number does not come from .env.

    Raises:
        StackError: naming it and its variable.
    """
    planned = expected_replicas(model)
    for service in wanted.keys() - set(SCALABLE):
        if planned.get(service) != wanted[service]:
            variable = replicas_variable(service)
            raise StackError(
                f"cannot scale {service}: its number of instances does not follow {variable}",
                where="compose.override.yaml",
                hint=f'give it `deploy: {{ replicas: "${{{variable}:-1}}" }}` there',
            )


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
        raise StackError(f"{argument!r} is not SERVICE=N", hint="for instance: worker=4")
    known = (*SCALABLE, *own_workers)
    if service not in known:
        raise StackError(f"{service!r} is not a service that scales", hint=f"these do: {', '.join(known)}")
    if not number.isdecimal() or not 1 <= int(number) <= MAX_INSTANCES:
        raise StackError(f"{number!r} is not a number of instances", where=argument, hint=f"take 1 to {MAX_INSTANCES}")
    return service, int(number)
