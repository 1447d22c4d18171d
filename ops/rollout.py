"""Brings the containers to what the compose files and .env ask for, and waits until they are well."""

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
"""Services that are starting may take their time, but not this long without one more of them getting well."""
REPORT_SECONDS = 10.0
POLL_SECONDS = 1.0
LOG_LINES = 15
TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def roll_out(project: Project, report: Callable[[str], None], *options: str, services: Collection[str] = ()) -> None:
    """Runs `docker compose up` and waits until every service has its instances, all of them healthy.

    An instance that is to go takes the time that it needs to finish its work, up to its stop_grace_period.

    Args:
        project: The stack.
        report: Shows a line to people.
        *options: Further options of `up`.
        services: Start only these, and what they depend on, and wait only for them; all if empty.

    Raises:
        StackError: The command failed, or nothing has got on for STALL_SECONDS; the service and the last lines of its
            log are reported. What runs is left running.
    """
    model = compose.config(project)
    best, said = -1, ""
    moved = said_at = time.monotonic()
    with compose.at_work(project, "up", "--detach", *options, *services) as ended:
        while True:
            failed: StackError | None = None
            try:
                done = ended()
            except StackError as error:
                done, failed = True, error
            found = [service for service in service_statuses(model) if not services or service["name"] in services]
            waiting = [service for service in found if not is_ready(service)]
            if failed:
                raise explained(project, model, waiting, report, failed)
            if done and not waiting:
                report(f"{len(found)} services are healthy")
                return

            now = time.monotonic()
            healthy = sum(service["healthy"] for service in found)
            if healthy > best or any(len(service["instances"]) > service["wanted"] for service in found):
                best, moved = max(best, healthy), now
            line = summary(found, waiting)
            if line != said or now - said_at >= REPORT_SECONDS:
                report(line)
                said, said_at = line, now
            if now - moved > STALL_SECONDS:
                stalled = StackError(f"no service has got on for {STALL_SECONDS:.0f} s", code=FAILURE)
                raise explained(project, model, waiting, report, stalled)
            time.sleep(POLL_SECONDS)


def recreate(project: Project, report: Callable[[str], None], services: list[str]) -> None:
    """Makes services anew one after the other, each healthy before the next, and nothing that they depend on.

    Raises:
        StackError: One does not become healthy; those after it are left as they were.
    """
    for name in services:
        report(f"{name}: made anew")
        compose.run(project, report, "up", "--detach", "--no-deps", "--force-recreate", "--wait", name)


def summary(found: list[ServiceStatus], waiting: list[ServiceStatus]) -> str:
    """How far it is, in a line."""
    names = ", ".join(f"{s['name']} {s['healthy']}/{s['wanted']}" for s in waiting)
    told = f"{len(found) - len(waiting)} of {len(found)} services are healthy"
    return f"{told}; waiting for {names}" if names else told


def explained(
    project: Project,
    model: Mapping[str, Any],
    waiting: list[ServiceStatus],
    report: Callable[[str], None],
    error: StackError,
) -> StackError:
    """The error with the service that holds up the others, whose last log lines are reported."""
    service = culprit(model, waiting)
    if not service or not service["instances"]:
        return error
    name = service["name"]
    log = compose.output(project, "logs", "--no-color", "--no-log-prefix", f"--tail={LOG_LINES}", name)
    report(f"the last that {name} wrote:")
    for line in TERMINAL_CODE.sub("", log).splitlines():
        report(f"  {line}")
    return StackError(
        f"{name} is not healthy; {error.what}",
        where=", ".join(f"{name} {one['id']} is {one['state']}, {one['health']}" for one in service["instances"]),
        hint=f"./ops/stack logs {name} has more; the rest stays up, and ./ops/stack up goes on from here",
        code=FAILURE,
    )


def culprit(model: Mapping[str, Any], waiting: list[ServiceStatus]) -> ServiceStatus | None:
    """The service that the others wait for: none that it depends on is in waiting; an unhealthy one first."""
    names = {service["name"] for service in waiting}

    def rank(service: ServiceStatus) -> tuple[bool, bool, str]:
        depends_on = model["services"].get(service["name"], {}).get("depends_on", {})
        unhealthy = any(one["health"] == "unhealthy" for one in service["instances"])
        return not names.isdisjoint(depends_on), not unhealthy, service["name"]

    return min(waiting, key=rank, default=None)
