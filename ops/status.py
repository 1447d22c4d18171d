"""What a stack is like right now, as one object: what `status --json` prints and `up` waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ops import compose, data_tier, patch_report, settings_file
from ops.clients.airflow import AirflowClient
from ops.clients.prometheus import Prometheus, Target
from ops.errors import StackError
from ops.project import ADMIN, SLACK_STUB_PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project


PAGES = {
    "airflow": "AIRFLOW_PORT",
    "flower": "FLOWER_PORT",
    "prometheus": "PROMETHEUS_PORT",
    "alertmanager": "ALERTMANAGER_PORT",
    "slack_stub": "SLACK_STUB_PORT",
    "grafana": "GRAFANA_PORT",
    "jaeger": "JAEGER_PORT",
}
"""What people open, by the variable of its port."""
PAGE_PROFILE = {"prometheus": "observability", "alertmanager": "observability", "slack_stub": SLACK_STUB_PROFILE}
"""The profile that a page is there with, where that has another name."""


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


def services(model: Mapping[str, Any]) -> list[ServiceStatus]:
    """Each service that should run, or does."""
    wanted = compose.wanted(model)
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


def is_whole(service: ServiceStatus) -> bool:
    """Whether a service has the instances that it should have, all of them healthy."""
    return service["healthy"] == service["wanted"] == len(service["instances"])


def all_whole(model: Mapping[str, Any]) -> bool:
    """Whether every service of a compose model is whole, as things are now."""
    return all(map(is_whole, services(model)))


def urls(settings: Mapping[str, str]) -> dict[str, str]:
    """Where people open what, for the profiles that are on."""
    address = settings["BIND_ADDRESS"]
    host = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "localhost", "::1": "localhost"}.get(  # noqa: S104
        address, address
    )
    on = {"airflow", *settings["COMPOSE_PROFILES"].split(",")}
    return {
        name: f"http://{host}:{settings[variable]}"
        for name, variable in PAGES.items()
        if PAGE_PROFILE.get(name, name) in on
    }


def images(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each image that .env names, and where it is from."""
    origins = dict(pair.split("=", 1) for pair in settings.get("STACK_IMAGES_ORIGIN", "").split(",") if "=" in pair)
    return {key: {"reference": settings[key], "origin": origin} for key, origin in origins.items() if key in settings}


def running_settings(project: Project, cure: str = "./ops/stack up starts it") -> dict[str, str]:
    """The settings of a stack that runs.

    Raises:
        StackError: It does not; with the cure.
    """
    settings = settings_file.read(project)
    found = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    if not any(instance.state == "running" for of in found.values() for instance in of):
        raise StackError("the stack does not run", cure=cure)
    return settings


def client(project: Project, settings: Mapping[str, str], report: Callable[[str], None] | None = None) -> AirflowClient:
    """Airflow's REST API of this stack, through its gateway.

    Args:
        project: The stack.
        settings: Its .env.
        report: Hears about it while Airflow does not answer.

    Raises:
        StackError: There is no admin password.
    """
    path = project.secrets / "airflow_admin_password"
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StackError(
            f"the admin password cannot be read: {error.strerror}",
            where=project.shown(path),
            cure="./ops/stack up makes it; run this as who ran that",
        ) from error
    return AirflowClient(local_url(settings), ADMIN, password, report=report)


def local_url(settings: Mapping[str, str], page: str = "airflow") -> str:
    """Where this machine reaches a page: not by name, which could mean another address family."""
    return local_address(settings, PAGES[page])


def local_address(settings: Mapping[str, str], port: str) -> str:
    """Where this machine reaches a published port, by the port's variable."""
    address = settings["BIND_ADDRESS"]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)  # noqa: S104
    return f"http://{host}:{settings[port]}"


def dags(project: Project, settings: Mapping[str, str]) -> dict[str, list[dict[str, str]]] | None:
    """The DAG files that do not import; None while Airflow cannot be asked."""
    try:
        return {"import_errors": client(project, settings).import_errors()}
    except StackError:
        return None


def targets(settings: Mapping[str, str]) -> list[Target] | None:
    """What Prometheus scrapes; None while it cannot be asked, or is not on."""
    if "prometheus" not in urls(settings):
        return None
    try:
        return Prometheus(local_url(settings, "prometheus")).targets()
    except StackError:
        return None


def is_quiet(settings: Mapping[str, str]) -> bool:
    """Whether the stack has settled, no page fires, and nothing that an earlier fault broke is still muted."""
    server = Prometheus(local_url(settings, "prometheus"))
    loud = server.query('ALERTS{alertstate="firing", severity="page"} or ALERTS{alertname="Aftermath"}')
    return not loud and bool(server.query("airflow_stack_settled"))


def collect(project: Project) -> Status:
    """The status of a stack; of one that was never started too.

    Raises:
        StackError: .env is broken, or Docker does not answer.
    """
    settings = settings_file.read(project)
    started = project.env_file.exists() and "AIRFLOW_IMAGE" in settings
    name = settings["COMPOSE_PROJECT_NAME"]
    found = services(compose.config(project)) if started else []
    ready = bool(found) and all(is_whole(service) for service in found)
    airflow_answers = any(service["name"] == "api-server" and service["healthy"] for service in found)
    replicated = started and "data-ha" in settings_file.profiles(settings)
    return Status(
        services=found,
        data=data_tier.members(name) if replicated else None,
        urls=urls(settings),
        login={"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")},
        images=images(settings),
        dags=dags(project, settings) if airflow_answers else None,
        targets=targets(settings) if started else None,
        patches=patch_report.exceptions(patch_report.running(compose.instances(name))) if started else [],
        ready=ready,
    )
