"""`restart`: restart containers one at a time, without downtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import compose
from ops.compose import running_settings
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.rolling import Stack, in_order, wait_until_healthy
from ops.screen import report

if TYPE_CHECKING:
    from collections.abc import Mapping


def restart(
    service: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="Services to restart; all unless given.", show_default=False),
    ] = None,
) -> None:
    """Restart every service, or those given, one container at a time, each healthy before the next.

    Dependencies come first: Postgres and Redis, then the gateway and the APIs, then schedulers and workers. Workers
    finish their tasks before they restart.

    Example: ./ops/stack restart scheduler worker
    """
    project = current_project()
    hint = "run ./ops/stack status, then ./ops/stack restart to start over"
    with when_interrupted(hint), stack_lock(project, "restart", report):
        settings = running_settings(project)
        model = compose.config(project)
        running = long_running(compose.instances(settings["COMPOSE_PROJECT_NAME"]), model)
        unknown = sorted(set(service or []) - set(running))
        if unknown:
            raise StackError(
                f"cannot restart {unknown[0]!r}: no such service runs",
                hint=f"choose from: {', '.join(sorted(running))}",
            )
        stack = Stack(project, model, report)
        chosen = [name for name in in_order(model, list(running)) if not service or name in service]
        refuse_unhealthy_services(running, chosen)
        for name in chosen:
            for number, instance in enumerate(running[name], start=1):
                report(f"{name} {number} of {len(running[name])}: {instance.id}")
                # `docker restart` waits up to the service's stop_grace_period.
                compose.docker("restart", instance.id)
                wait_until_healthy(stack, name, [instance.id])
        report(f"{sum(len(running[name]) for name in chosen)} containers are restarted and healthy")


def long_running(
    by_service: Mapping[str, list[compose.Instance]], model: Mapping[str, Any]
) -> dict[str, list[compose.Instance]]:
    """Return the services without the one-shot services."""
    return {
        name: instances
        for name, instances in by_service.items()
        if model["services"].get(name, {}).get("restart") == "always"
    }


def refuse_unhealthy_services(by_service: Mapping[str, list[compose.Instance]], chosen: list[str]) -> None:
    """Refuse to restart an instance while another instance of its service is unhealthy.

    Raises:
        StackError: The error names the service.
    """
    for name in chosen:
        if len(by_service[name]) > 1 and not all(instance.is_healthy for instance in by_service[name]):
            raise StackError(
                f"cannot restart {name}: an instance is unhealthy, and a restart of another could stop the service",
                hint="run ./ops/stack status, then ./ops/stack up to start what is missing",
            )
