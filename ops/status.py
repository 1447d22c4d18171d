"""What a stack is like right now, as one object: what `status --json` prints and `up` waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ops import compose, data_tier, patch_report, settings_file
from ops.clients.airflow import connect
from ops.clients.prometheus import Prometheus, Target
from ops.compose import expected_replicas
from ops.errors import StackError
from ops.project import ADMIN
from ops.services import local_url, page_urls
from ops.settings_file import image_origins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project


class InstanceStatus(TypedDict):
    """One container; `suspended_tasks` are those that block slots of a worker."""

    id: str
    state: str
    health: str
    suspended_tasks: int


class ServiceStatus(TypedDict):
    """One service: how many instances there should be, how many are healthy, and each of them."""

    name: str
    wanted: int
    healthy: int
    instances: list[InstanceStatus]


class Status(TypedDict):
    """The whole stack.

    `data` is None without the profile data-ha. `dags` is None while Airflow cannot be asked, `targets` while Prometheus
    cannot or is not on. `patches` are those that are off or skipped somewhere. `ready`: every service has its
    instances, all of them healthy.
    """

    services: list[ServiceStatus]
    data: list[data_tier.Member] | None
    urls: dict[str, str]
    login: dict[str, str]
    images: dict[str, dict[str, str]]
    dags: dict[str, list[dict[str, str]]] | None
    targets: list[Target] | None
    patches: list[dict[str, str]]
    ready: bool


def service_statuses(model: Mapping[str, Any]) -> list[ServiceStatus]:
    """Each service that should run, or does."""
    wanted = expected_replicas(model)
    found = compose.instances(model["name"])
    return [
        ServiceStatus(
            name=name,
            wanted=wanted.get(name, 0),
            healthy=sum(instance.ok for instance in found.get(name, [])),
            instances=[
                InstanceStatus(
                    id=instance.id,
                    state=instance.state,
                    health=instance.health,
                    suspended_tasks=instance.suspended_tasks,
                )
                for instance in found.get(name, [])
            ],
        )
        for name in sorted(wanted.keys() | found.keys())
    ]


def is_ready(service: ServiceStatus) -> bool:
    """Whether a service has the instances that it should have, all of them healthy."""
    return service["healthy"] == service["wanted"] == len(service["instances"])


def all_ready(model: Mapping[str, Any]) -> bool:
    """Whether every service of a compose model is whole, as things are now."""
    return all(map(is_ready, service_statuses(model)))


def dags(project: Project, settings: Mapping[str, str]) -> dict[str, list[dict[str, str]]] | None:
    """The DAG files that do not import; None while Airflow cannot be asked."""
    try:
        return {"import_errors": connect(project, settings).import_errors()}
    except StackError:
        return None


def targets(settings: Mapping[str, str]) -> list[Target] | None:
    """What Prometheus scrapes; None while it cannot be asked, or is not on."""
    if "prometheus" not in page_urls(settings):
        return None
    try:
        return Prometheus(local_url(settings, "prometheus")).targets()
    except StackError:
        return None


def collect(project: Project) -> Status:
    """The status of a stack; of one that was never started too.

    Raises:
        StackError: .env is broken, or Docker does not answer.
    """
    settings = settings_file.read(project)
    started = project.env_file.exists() and "AIRFLOW_IMAGE" in settings
    name = settings["COMPOSE_PROJECT_NAME"]
    found = service_statuses(compose.config(project)) if started else []
    ready = bool(found) and all(is_ready(service) for service in found)
    airflow_answers = any(service["name"] == "api-server" and service["healthy"] for service in found)
    replicated = started and "data-ha" in settings_file.profiles(settings)
    return Status(
        services=found,
        data=data_tier.members(name) if replicated else None,
        urls=page_urls(settings),
        login={"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")},
        images=image_origins(settings),
        dags=dags(project, settings) if airflow_answers else None,
        targets=targets(settings) if started else None,
        patches=patch_report.unapplied_patches(patch_report.running_states(compose.instances(name))) if started else [],
        ready=ready,
    )
