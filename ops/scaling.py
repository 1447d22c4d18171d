"""Scaling of services without downtime, under the caller's lock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

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
from ops.project import ROOT
from ops.rollout import roll_out
from ops.services import MAX_INSTANCES, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ops.project import Project


def scale(project: Project, replicas: Mapping[str, int], report: Callable[[str], None]) -> None:
    """Write the replica counts to .env, and wait until every instance is healthy.

    Args:
        project: A running stack.
        replicas: The expected replicas by service.
        report: Prints a line of progress.

    Raises:
        StackError: An instance does not become healthy (.env keeps the counts), or compose.override.yaml fixes the
            replica count of a service.
    """
    settings = settings_file.read(project)
    new = {replicas_variable(service): str(count) for service, count in replicas.items()}
    container_limits.check_machine(project, settings | new, preflight.machine_memory())
    name = settings["COMPOSE_PROJECT_NAME"]
    # During the rollout the alerts expect the smaller count: surplus instances and those still starting are no fault.
    smaller = {key: str(min(int(count), int(settings[key]))) for key, count in new.items()}
    settings_file.write(project, settings | new)
    generated_config.write(project, settings | smaller)
    generated_config.load(project, name)
    model = compose.config(project)
    refuse_fixed_numbers(model, replicas)
    if warning := worker_slots.shortage(model):
        report(warning)
    # --no-deps: `migrate`, on which every service depends, need not run again. But a container that is created with it
    # has a hash without the dependencies, so that the next `up` would recreate it.
    with compose.without_leftover_volumes(name):
        compose.run(project, report, "up", "--no-start", "--no-recreate", *replicas)
        roll_out(project, report, "--no-deps", "--no-recreate", *replicas)
    generated_config.write(project, settings | new)
    generated_config.load(project, name)


def refuse_fixed_numbers(model: Mapping[str, Any], replicas: Mapping[str, int]) -> None:
    """Refuse to scale a service of compose.override.yaml whose replica count does not come from .env.

    Raises:
        StackError: The error names the service and its variable.
    """
    expected = expected_replicas(model)
    for service in replicas.keys() - set(SCALABLE):
        if expected.get(service) != replicas[service]:
            variable = replicas_variable(service)
            raise StackError(
                f"cannot scale {service}: its replica count does not follow {variable}",
                where="compose.override.yaml",
                hint=f'add `deploy: {{ replicas: "${{{variable}:-1}}" }}` to the service',
            )


def parse_scale(argument: str, own_workers: Collection[str] = ()) -> tuple[str, int]:
    """Return the service and the replica count of an argument such as `worker=4`.

    Args:
        argument: The argument of `scale` or of `up --scale`.
        own_workers: The worker services of compose.override.yaml, which scale too.

    Raises:
        StackError: The argument is malformed, the service is unknown or does not scale, or the count is not valid.
    """
    service, equals, number = argument.partition("=")
    if not equals:
        raise StackError(f"cannot read {argument!r}: expected SERVICE=N", hint="write for example worker=4")
    known = (*SCALABLE, *own_workers)
    if service not in known:
        reason = "the service does not scale" if service in all_services() else "unknown service"
        raise StackError(f"cannot scale {service!r}: {reason}", hint=f"choose from: {', '.join(known)}")
    is_integer = re.fullmatch(r"-?\d+", number, re.ASCII) is not None
    if not is_integer or not 1 <= int(number) <= MAX_INSTANCES:
        reason = "the number is out of range" if is_integer else "it is not a whole number"
        raise StackError(
            f"cannot scale {service} to {number!r}: {reason}", where=argument, hint=f"choose 1 to {MAX_INSTANCES}"
        )
    return service, int(number)


def all_services() -> set[str]:
    """Return the services of the compose files, whatever the profiles: no stack need exist."""
    files = [*(ROOT / "compose").glob("*.yaml")]
    return {name for file in files for name in yaml.safe_load(file.read_text(encoding="utf-8")).get("services") or {}}
