"""`restart`: every container anew, one at a time, while the stack works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import compose
from ops.compose import running_settings
from ops.errors import FAILURE, StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import report

if TYPE_CHECKING:
    from collections.abc import Mapping

WELL_SECONDS = 300.0
"""How long a container may take to become healthy."""
POLL_SECONDS = 1.0


def restart(
    service: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="All unless given.", show_default=False)
    ] = None,
) -> None:
    """Restart every service, or those named, one container at a time, each healthy before the next.

    What others depend on comes first (Postgres and Redis, then the gateway and the APIs, then schedulers and workers):
    whatever connects to it is itself restarted after it, and so ends on connections that are new. Workers finish their
    tasks first.
    """
    project = current_project()
    hint = "./ops/stack status shows whether all is well; ./ops/stack restart starts again"
    with when_interrupted(hint), stack_lock(project, "restart", report):
        settings = running_settings(project)
        model = compose.config(project)
        known = lasting(compose.instances(settings["COMPOSE_PROJECT_NAME"]), model)
        unknown = sorted(set(service or []) - set(known))
        if unknown:
            raise StackError(
                f"there is no service {unknown[0]!r} that runs", hint=f"these do: {', '.join(sorted(known))}"
            )
        chosen = [name for name in in_order(model, list(known)) if not service or name in service]
        refuse_what_is_unwell(known, chosen)
        for name in chosen:
            for number, instance in enumerate(known[name], start=1):
                report(f"{name} {number} of {len(known[name])}: {instance.id}")
                restart_one(settings["COMPOSE_PROJECT_NAME"], name, instance.id)
        report(f"{sum(len(known[name]) for name in chosen)} containers were restarted, and are healthy")


def lasting(found: Mapping[str, list[compose.Instance]], model: Mapping[str, Any]) -> dict[str, list[compose.Instance]]:
    """The services that run on, without those that end when their work is done."""
    return {
        name: instances
        for name, instances in found.items()
        if model["services"].get(name, {}).get("restart") == "always"
    }


def in_order(model: Mapping[str, Any], names: list[str]) -> list[str]:
    """The services, each after those that it depends on, directly or through one that ends by itself."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for dependency in sorted(model["services"].get(name, {}).get("depends_on", {})):
            visit(dependency)
        if name in names and name not in ordered:
            ordered.append(name)

    for name in ["postgres", "redis", *sorted(names)]:
        visit(name)
    return ordered


def refuse_what_is_unwell(found: Mapping[str, list[compose.Instance]], chosen: list[str]) -> None:
    """Refuses to take away an instance whose peer is unwell already.

    Raises:
        StackError: naming the service.
    """
    for name in chosen:
        if len(found[name]) > 1 and not all(instance.ok for instance in found[name]):
            raise StackError(
                f"{name} is not whole: to restart its other instance now could stop the service",
                hint="./ops/stack status shows it; ./ops/stack up starts what is missing",
            )


def restart_one(project: str, service: str, container: str) -> None:
    """Restarts a container and waits until it is healthy.

    Raises:
        StackError: It does not become so.
    """
    # Waits for as long as the service's stop_grace_period says.
    compose.docker("restart", container)
    deadline = time.monotonic() + WELL_SECONDS
    while True:
        states = {one.id: one for one in compose.instances(project).get(service, [])}
        found = states.get(container)
        if found and found.ok and found.state == "running":
            return
        if time.monotonic() > deadline:
            seen = f"{found.state}, {found.health}" if found else "gone"
            raise StackError(
                f"{service} is not healthy {WELL_SECONDS:.0f} s after its restart",
                where=f"{container} is {seen}",
                hint=f"./ops/stack logs {service} says why; the others were left alone",
                code=FAILURE,
            )
        time.sleep(POLL_SECONDS)
