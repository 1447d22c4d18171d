"""The current status of a stack, as one object: the output of `status --json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ops import compose, data_tier, inner_tls, patch_report, secret_ages, settings_file
from ops.clients import prometheus
from ops.clients.airflow import connect
from ops.compose import expected_replicas
from ops.errors import StackError
from ops.project import ADMIN
from ops.services import page_urls
from ops.settings_file import image_origins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project


class InstanceStatus(TypedDict):
    """One container.

    `suspended_tasks` is the number of worker slots that suspended tasks occupy; `refused_addresses` and `refused_users`
    are those whose log-ins the gateway refuses after too many failures; `waits_for` is what maintenance waits for.
    """

    id: str
    state: str
    health: str
    suspended_tasks: int
    refused_addresses: int
    refused_users: int
    waits_for: str


class ServiceStatus(TypedDict):
    """One service: its expected replicas (`wanted`), its healthy instances, and all its instances."""

    name: str
    wanted: int
    healthy: int
    instances: list[InstanceStatus]


class Status(TypedDict):
    """The whole stack.

    `data` is None without profile data-ha. `dags` is None while Airflow does not answer, `targets` while Prometheus
    does not answer or is off. `patches` lists the patches that are off or skipped in a container. `certificates` is
    the expiry of each certificate of the stack's own authority, empty without TLS. `ready` is true if every service has
    its expected replicas and all are healthy.
    """

    services: list[ServiceStatus]
    data: list[data_tier.Member] | None
    urls: dict[str, str]
    login: dict[str, str]
    images: dict[str, dict[str, str]]
    dags: dict[str, list[dict[str, str]]] | None
    targets: list[prometheus.Target] | None
    patches: list[dict[str, str]]
    secrets: list[secret_ages.SecretAge]
    certificates: dict[str, str]
    ready: bool


def service_statuses(model: Mapping[str, Any]) -> list[ServiceStatus]:
    """Return the status of each service that is configured or has a container."""
    expected = expected_replicas(model)
    by_service = compose.instances(model["name"])
    return [
        ServiceStatus(
            name=name,
            wanted=expected.get(name, 0),
            healthy=sum(instance.is_healthy for instance in by_service.get(name, [])),
            instances=[
                InstanceStatus(
                    id=instance.id,
                    state=instance.state,
                    health=instance.health,
                    suspended_tasks=instance.suspended_tasks,
                    refused_addresses=instance.refused_addresses,
                    refused_users=instance.refused_users,
                    waits_for=instance.waits_for,
                )
                for instance in by_service.get(name, [])
            ],
        )
        for name in sorted(expected.keys() | by_service.keys())
    ]


def is_ready(service: ServiceStatus) -> bool:
    """Return whether a service has its expected replicas, all healthy, and no surplus instance."""
    return service["healthy"] == service["wanted"] == len(service["instances"])


def all_ready(model: Mapping[str, Any]) -> bool:
    """Return whether every service of a compose model is ready."""
    return all(map(is_ready, service_statuses(model)))


def dag_status(project: Project, settings: Mapping[str, str]) -> dict[str, list[dict[str, str]]] | None:
    """Return the import errors of DAG files; None while Airflow does not answer."""
    try:
        return {"import_errors": connect(project, settings).import_errors()}
    except StackError:
        return None


def scrape_targets(settings: Mapping[str, str]) -> list[prometheus.Target] | None:
    """Return the scrape targets of Prometheus; None while it does not answer or is off."""
    if "prometheus" not in page_urls(settings):
        return None
    try:
        return prometheus.connect(settings).targets()
    except StackError:
        return None


def collect(project: Project) -> Status:
    """Return the status of a stack, including one that was never started.

    Raises:
        StackError: .env is not valid, or Docker does not answer.
    """
    settings = settings_file.read(project)
    started = project.env_file.exists() and "AIRFLOW_IMAGE" in settings
    name = settings["COMPOSE_PROJECT_NAME"]
    services = service_statuses(compose.config(project)) if started else []
    ready = bool(services) and all(map(is_ready, services))
    airflow_answers = any(service["name"] == "api-server" and service["healthy"] for service in services)
    replicated = started and "data-ha" in settings_file.profiles(settings)
    return Status(
        services=services,
        data=data_tier.members(name) if replicated else None,
        urls=page_urls(settings),
        login={"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")},
        images=image_origins(settings),
        dags=dag_status(project, settings) if airflow_answers else None,
        targets=scrape_targets(settings) if started else None,
        patches=patch_report.unapplied_patches(patch_report.running_states(compose.instances(name))) if started else [],
        secrets=secret_ages.ages(project),
        certificates={name: expires.isoformat() for name, expires in inner_tls.expiries(project, settings).items()},
        ready=ready,
    )
