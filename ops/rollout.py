"""The rollout of the containers: apply the compose files and .env, and wait until every service is healthy."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from ops import compose
from ops.errors import FAILURE, StackError
from ops.status import is_ready, service_statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ops.project import Project
    from ops.status import ServiceStatus

STALL_SECONDS = 300.0
"""A rollout fails when no further instance becomes healthy for so long; before that it has no deadline."""
REPORT_SECONDS = 10.0
POLL_SECONDS = 1.0
LOG_LINES = 15
TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def roll_out(project: Project, report: Callable[[str], None], *options: str, services: Collection[str] = ()) -> None:
    """Run `docker compose up`, and wait until every service has its expected instances, all healthy.

    A surplus instance has its stop_grace_period to finish its work.

    Args:
        project: The stack.
        report: Prints a line of progress.
        *options: Further options of `up`.
        services: Start only these with their dependencies, and wait only for these; all if empty.

    Raises:
        StackError: The command failed, or the rollout stalled for STALL_SECONDS. The last log lines of the service
            that blocks the others are reported. Running containers keep running.
    """
    model = compose.config(project)
    progress = Progress(report)
    with compose.run_in_background(project, "up", "--detach", *options, *services) as has_succeeded:
        while True:
            command_error: StackError | None = None
            has_ended = False
            try:
                has_ended = has_succeeded()
            except StackError as error:
                command_error = error
            statuses = [status for status in service_statuses(model) if not services or status["name"] in services]
            waiting = [service for service in statuses if not is_ready(service)]
            if command_error:
                raise explained(project, model, waiting, report, command_error)
            if has_ended and not waiting:
                report(f"{len(statuses)} services are healthy")
                return
            if progress.is_stalled(statuses, waiting):
                stalled = StackError(f"no service became healthy in the last {STALL_SECONDS:.0f} s", code=FAILURE)
                raise explained(project, model, waiting, report, stalled)
            time.sleep(POLL_SECONDS)


class Progress:
    """The progress of one rollout: reports it, and detects a stall."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.most_healthy = -1
        self.last_line = ""
        self.progressed_at = self.reported_at = time.monotonic()

    def is_stalled(self, statuses: list[ServiceStatus], waiting: list[ServiceStatus]) -> bool:
        """Report a changed summary, or the same one every REPORT_SECONDS; return whether the rollout is stalled.

        A further healthy instance is progress. So is a surplus instance, which finishes its work before it stops.
        """
        now = time.monotonic()
        healthy = sum(service["healthy"] for service in statuses)
        has_surplus = any(len(service["instances"]) > service["wanted"] for service in statuses)
        if healthy > self.most_healthy or has_surplus:
            self.most_healthy, self.progressed_at = max(self.most_healthy, healthy), now
        line = summary(statuses, waiting)
        if line != self.last_line or now - self.reported_at >= REPORT_SECONDS:
            self.report(line)
            self.last_line, self.reported_at = line, now
        return now - self.progressed_at > STALL_SECONDS


def recreate(project: Project, report: Callable[[str], None], services: list[str]) -> None:
    """Recreate services one after the other without their dependencies, and wait until each is healthy.

    Raises:
        StackError: A service does not become healthy; the services after it are unchanged.
    """
    for name in services:
        report(f"{name}: recreating")
        compose.run(project, report, "up", "--detach", "--no-deps", "--force-recreate", "--wait", name)


def summary(statuses: list[ServiceStatus], waiting: list[ServiceStatus]) -> str:
    """Return the number of healthy services and the names of the others, as one line."""
    names = ", ".join(f"{service['name']} {service['healthy']}/{service['wanted']}" for service in waiting)
    count = f"{len(statuses) - len(waiting)} of {len(statuses)} services are healthy"
    return f"{count}; waiting for {names}" if names else count


def explained(
    project: Project,
    model: Mapping[str, Any],
    waiting: list[ServiceStatus],
    report: Callable[[str], None],
    error: StackError,
) -> StackError:
    """Report the last log lines of the service that blocks the others, and return the error with its name."""
    service = blocking_service(model, waiting)
    if not service or not service["instances"]:
        return error
    name = service["name"]
    log = compose.output(project, "logs", "--no-color", "--no-log-prefix", f"--tail={LOG_LINES}", name)
    report(f"last log lines of {name}:")
    for line in TERMINAL_CODE.sub("", log).splitlines():
        report(f"  {line}")
    instances = service["instances"]
    return StackError(
        f"cannot complete the rollout: {name} is not healthy; {error.what}",
        where=", ".join(
            f"{name} {instance['id']} is {instance['state']}, {instance['health']}" for instance in instances
        ),
        hint=f"run ./ops/stack logs {name}, then ./ops/stack up, which continues from here",
        code=FAILURE,
    )


def blocking_service(model: Mapping[str, Any], waiting: list[ServiceStatus]) -> ServiceStatus | None:
    """Return the waiting service that depends on no other waiting service, an unhealthy one first."""
    names = {service["name"] for service in waiting}

    def rank(service: ServiceStatus) -> tuple[bool, bool, str]:
        depends_on = model["services"].get(service["name"], {}).get("depends_on", {})
        unhealthy = any(instance["health"] == "unhealthy" for instance in service["instances"])
        return not names.isdisjoint(depends_on), not unhealthy, service["name"]

    return min(waiting, key=rank, default=None)
