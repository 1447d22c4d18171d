"""Rolling replacement: one container at a time gets the image and the settings of its service.

Each is healthy before the next one stops, so that no service with several instances is ever down. Compose alone
recreates all containers at once: a worker would wait for its tasks while these wait for the Execution API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.patches import registry
from ops import compose, data_tier, failover, secrets_store, token_keys
from ops.compose import expected_replicas
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES, REDIS_NODES
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ops.compose import Instance
    from ops.project import Project

HEALTHY_SECONDS: Final = 300.0
"""Timeout of a new or restarted container becoming healthy, and of a one-shot container."""
FIRST: Final = ("postgres", "redis", "migrate", "gateway", "execution-api", "api-server", "scheduler")
"""Upstream supports an older worker at a newer Execution API, and no newer worker at an older one: workers follow."""
THEN: Final = ("dag-processor", "triggerer", "flower")
SWITCHES: Final = ((POSTGRES_NODES, failover.switch_postgres), (REDIS_NODES, failover.switch_redis))
"""The nodes of each replicated service, and the failover that turns its primary into a replica."""
DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)(?:\.\d+)?s)?")
DOCKER_STOP_SECONDS: Final = 10
"""Docker's time for a container to stop, where its service sets none."""


@dataclass(frozen=True)
class Stack:
    """The stack that is replaced.

    Attributes:
        project: Its files.
        model: Its compose model, which every container shall have.
        report: Prints a line of progress.
        with_old_secrets: The ids of the containers that only differ by a secret file, which compose would keep.
    """

    project: Project
    model: Mapping[str, Any]
    report: Callable[[str], None]
    with_old_secrets: Collection[str] = ()

    @property
    def name(self) -> str:
        """The compose project's name."""
        return str(self.model["name"])

    def instances(self, service: str) -> list[Instance]:
        """Return the containers of a service, the oldest first."""
        return compose.instances(self.name).get(service, [])


def replace_outdated(project: Project, report: Callable[[str], None], within: Collection[str] = ()) -> int:
    """Replace the containers that differ from their service, or that are older than a secret file that they read.

    The order is that of `in_order`; the number of replaced containers is returned.

    Args:
        project: A running stack, with the settings that its containers shall have.
        report: Prints a line of progress.
        within: Replace only containers of these services; of all if empty.

    Raises:
        StackError: A container does not become healthy. Those after it are unchanged.
    """
    model = compose.config(project)
    services = model["services"]
    by_service = compose.instances(str(model["name"]))
    ids = compose.outdated(project)
    old = with_old_secrets(model, by_service, secrets_store.mounted_since(project))
    stack = Stack(project, model, report, old - ids)
    outdated = {
        service: [instance for instance in instances if instance.id in ids | old]
        for service, instances in by_service.items()
        if service in services and (not within or service in within)
    }
    outdated = {service: instances for service, instances in outdated.items() if instances}
    short = stopped_dependencies(stack.model, by_service, outdated)
    primaries = data_tier.primaries(data_tier.members(stack.name)) if is_replicated(outdated) else set[str]()
    at_once = token_services(project, outdated)
    for service in primaries_last(in_order(stack.model, [*outdated, *short]), primaries):
        if service == token_keys.VERIFIER and at_once:
            stop_services(stack, at_once)
        if service in at_once:
            create_and_start(stack, service, keep_outdated=False)
        else:
            replace_service(stack, service, outdated.get(service, []))
    return sum(map(len, outdated.values()))


def token_services(project: Project, outdated: Mapping[str, list[Instance]]) -> dict[str, list[Instance]]:
    """Return the containers that are replaced at once, because tokens are signed with another key from now on.

    An Execution API of before refuses such tokens: a task that got its token from a new container would fail with its
    next call to an old one. So all of it stops before; calls of running tasks are retried for nearly two minutes. The
    schedulers stop first and start last: meanwhile none judges a missing heartbeat.
    """
    if not token_keys.are_taken_over(project, outdated.get(token_keys.VERIFIER, [])):
        return {}
    return {service: outdated[service] for service in ("scheduler", token_keys.VERIFIER) if service in outdated}


def stop_services(stack: Stack, services: Mapping[str, list[Instance]]) -> None:
    """Stop the containers of these services, one service after the other."""
    for service, instances in services.items():
        stack.report(f"{service}: stopping, because the key of tokens is another one from now on")
        grace = stop_seconds(stack.model["services"][service].get("stop_grace_period"))
        compose.stop([instance.id for instance in instances], grace, service, stack.report)


def with_old_secrets(
    model: Mapping[str, Any], by_service: Mapping[str, list[Instance]], since: Mapping[str, float]
) -> set[str]:
    """Return the ids of the containers that are older than a secret file that they read.

    Compose does not notice a secret file with new content; a container keeps the one that it started with.

    Args:
        model: The compose model.
        by_service: The containers.
        since: When each secret file got its content, by its path under secrets/mounted/, in seconds since the epoch.
    """
    ids = set()
    for name, instances in by_service.items():
        used = [secret["source"] for secret in model["services"].get(name, {}).get("secrets", [])]
        files = {"/".join(Path(model["secrets"][source]["file"]).parts[-2:]) for source in used}
        newest = max((since.get(file, 0.0) for file in files), default=0.0)
        ids |= {instance.id for instance in instances if instance.created < newest}
    return ids


def is_replicated(services: Iterable[str]) -> bool:
    """Return whether a node of the replicated data tier is among the services."""
    return not set(services).isdisjoint((*POSTGRES_NODES, *REDIS_NODES))


def stopped_dependencies(
    model: Mapping[str, Any], by_service: Mapping[str, list[Instance]], services: Iterable[str]
) -> set[str]:
    """Return the services that others need, directly or not, and that lack a running instance.

    Args:
        model: The compose model.
        by_service: The containers.
        services: The services that need them.
    """
    needed = set(in_order(model, list(model["services"]), roots=list(services)))
    return {
        service
        for service, count in expected_replicas(model).items()
        if service in needed
        and not is_one_shot(model, service)
        and len(compose.in_state(by_service, "running", [service])) < count
    }


def is_one_shot(model: Mapping[str, Any], service: str) -> bool:
    """Return whether a service's container ends by itself."""
    return str(model["services"][service].get("restart", "no")) != "always"


def component(model: Mapping[str, Any], service: str) -> str:
    """Return the component of Airflow that a service runs, `worker` for the operator's own workers; empty if none."""
    environment = model["services"].get(service, {}).get("environment") or {}
    return registry.service_of(environment.get("AIRFLOW_HA_COMPONENT", ""))


def in_order(model: Mapping[str, Any], names: list[str], roots: list[str] | None = None) -> list[str]:
    """Return the services, each after its direct and indirect dependencies; workers after APIs and schedulers.

    A service is thus replaced after everything that it connects to, and ends with fresh connections.

    Args:
        model: The compose model.
        names: The services.
        roots: Only these services and their dependencies; all unless given.
    """
    services = model["services"]
    workers = [name for name in names if component(model, name) == "worker"]
    ordered: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for dependency in sorted(services.get(name, {}).get("depends_on", {})):
            visit(dependency)
        if name in names:
            ordered.append(name)

    for name in [*FIRST, *sorted(workers), *THEN, *sorted(names)] if roots is None else roots:
        visit(name)
    return ordered


def primaries_last(ordered: list[str], primaries: Collection[str]) -> list[str]:
    """Return the services with the nodes of each replicated service in another order: its primary last."""
    result = list(ordered)
    for nodes, _ in SWITCHES:
        positions = [position for position, name in enumerate(ordered) if name in nodes]
        names = sorted((ordered[position] for position in positions), key=lambda name: name in primaries)
        for position, name in zip(positions, names, strict=True):
            result[position] = name
    return result


def replace_service(stack: Stack, service: str, outdated: list[Instance]) -> None:
    """Replace these containers of a service one at a time, and start those that are missing.

    Raises:
        StackError: A container does not become healthy.
    """
    if not outdated:
        stack.report(f"{service}: starting")
        create_and_start(stack, service, keep_outdated=True)
    for number, instance in enumerate(outdated, start=1):
        stack.report(f"{service} {number} of {len(outdated)}: replacing {instance.id}")
        for nodes, switch in SWITCHES:
            if service in nodes and service in data_tier.primaries(data_tier.members(stack.name)):
                switch(stack.name, stack.report)
        if instance.state not in ("exited", "created"):
            grace = stop_seconds(stack.model["services"][service].get("stop_grace_period"))
            compose.stop([instance.id], grace, f"{service} {instance.id}", stack.report)
        # Compose can only recreate all outdated containers of a service: the last one, which so keeps its number.
        is_last = number == len(outdated) and instance.id not in stack.with_old_secrets
        if not is_last:
            compose.docker("rm", "--volumes", instance.id)
        create_and_start(stack, service, keep_outdated=not is_last)


def start_missing(project: Project, services: list[str], report: Callable[[str], None]) -> None:
    """Start the missing and stopped containers of services, and wait until all of each service are healthy.

    Raises:
        StackError: A container does not become healthy.
    """
    stack = Stack(project, compose.config(project), report)
    for service in in_order(stack.model, services):
        report(f"{service}: starting")
        create_and_start(stack, service, keep_outdated=True)
        wait_until_healthy(stack, service, [instance.id for instance in stack.instances(service)])


def create_and_start(stack: Stack, service: str, *, keep_outdated: bool) -> None:
    """Create the missing containers of a service, start them, and wait until they are healthy.

    `up --no-deps` would create a container that the next `up` recreates: its hash lacks the dependencies. A plain `up`
    would run `migrate` again.

    Args:
        stack: The stack.
        service: The service, whose dependencies are up to date.
        keep_outdated: Whether its outdated containers stay; otherwise compose recreates them too.
    """
    options = ["--no-recreate"] if keep_outdated else []
    compose.run(stack.project, lambda _: None, "up", "--no-start", *options, service)
    # Of a one-shot service only the new container is started: an exited one has done its work.
    startable = ("created",) if is_one_shot(stack.model, service) else ("created", "exited")
    if new := [instance.id for instance in stack.instances(service) if instance.state in startable]:
        compose.docker("start", *new)
        wait_until_healthy(stack, service, new)


def wait_until_healthy(stack: Stack, service: str, containers: list[str]) -> None:
    """Wait until containers are healthy, and a node of the replicated data tier is in sync.

    Raises:
        StackError: They are not after HEALTHY_SECONDS, or a one-shot container has failed.
    """

    def current() -> list[Instance]:
        return [instance for instance in stack.instances(service) if instance.id in containers]

    def are_healthy() -> bool:
        instances = current()
        if is_one_shot(stack.model, service):
            if any(instance.state == "exited" and not instance.is_healthy for instance in instances):
                raise StackError(f"{service} has failed", code=FAILURE)
            return all(instance.health == "done" for instance in instances)
        return len(instances) == len(containers) and all(map(is_healthy, instances))

    def is_ready() -> bool:
        return are_healthy() and (not is_replicated([service]) or data_tier.is_in_sync(data_tier.members(stack.name)))

    try:
        wait(is_ready, HEALTHY_SECONDS, f"{service} is healthy", stack.report)
    except StackError as error:
        states = ", ".join(f"{instance.id} is {instance.state}, {instance.health}" for instance in current())
        raise StackError(
            f"cannot continue: {service} is not healthy; {error.what}",
            where=states or "its container is removed",
            hint=f"run ./ops/stack logs {service}; the containers after it are unchanged",
            code=FAILURE,
        ) from error


def is_healthy(instance: Instance) -> bool:
    """Return whether a container runs and is healthy, by its own probe as long as Docker has not run it."""
    if instance.state != "running":
        return False
    return instance.is_healthy or (instance.health == "starting" and compose.probe_succeeds(instance.id))


def stop_seconds(period: str | None) -> int:
    """Return the seconds of a duration as compose prints it, such as `1h10m0s`; DOCKER_STOP_SECONDS without one."""
    match = DURATION.fullmatch(period or "")
    if not period or not match:
        return DOCKER_STOP_SECONDS
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
