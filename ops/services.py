"""The catalogue of the stack's services: profiles, published ports and pages, and which services scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PROFILES: Final = {
    "data": "one Postgres and one Redis; omit it to use external ones",
    "data-ha": "replicated Postgres and Redis with automatic failover, instead of `data`",
    "flower": "Flower, the web page of Celery's workers and queues",
    "observability": "metrics (StatsD, OpenTelemetry, Prometheus), alerts, traces and dashboards",
    "backup": "backups of the database and the files, with restore to a point in time",
}
"""The compose profiles that `up --profile` takes, and what each adds to the core."""
DEFAULT_PROFILES: Final = ("data", "flower", "observability")
DATA_PROFILES: Final = ("data", "data-ha")
"""The profiles with Postgres and Redis; at most one is active, and without them both are external."""
OBSERVABILITY: Final = "observability"
BACKUP: Final = "backup"
BACKUP_PROFILES: Final = {"data": "backup-data", "data-ha": "backup-data-ha"}
"""The compose profile of the backup services of each data tier, which `up` turns on with BACKUP."""
SLACK_STUB_PROFILE: Final = "slack-stub"
"""The compose profile of the Slack stub, which `up` turns on while no real webhook is set."""

POSTGRES_NODES: Final[tuple[str, ...]] = ("patroni-1", "patroni-2")
REDIS_NODES: Final[tuple[str, ...]] = ("redis-1", "redis-2", "redis-3")
ETCD_NODES: Final[tuple[str, ...]] = ("etcd-1", "etcd-2", "etcd-3")
SENTINELS: Final[tuple[str, ...]] = ("sentinel-1", "sentinel-2", "sentinel-3")
BACKUP_NODES: Final = {"data": ("backup",), "data-ha": ("backup-1", "backup-2")}
"""The services that back up Postgres, by data tier; only the one beside the primary acts."""
BACKUP_VOLUME: Final = "backup-repository"
"""The volume of the backups, unless BACKUP_FOLDER names a folder of the host."""
BACKUP_FILES: Final = "backup-files"
"""The service that backs up files."""
ALERTMANAGERS: Final = ("alertmanager-1", "alertmanager-2")
"""Both receive every alert; their cluster sends each notification once."""

GATEWAY: Final = "gateway"
"""Publishes Airflow."""
PAGES_DOOR: Final = "pages"
"""Publishes every other page."""
PAGES_DOOR_PROFILES: Final = ("flower", OBSERVABILITY)
"""The profiles with which PAGES_DOOR runs; it publishes its ports also for pages that do not run."""

SCALABLE: Final = ("worker", "scheduler", "api-server", "execution-api", "triggerer")
"""The services that may have several instances; each has a variable *_REPLICAS in .env."""
MAX_INSTANCES: Final = 20
"""The size of `server-template` in compose/gateway/haproxy.cfg."""


@dataclass(frozen=True)
class PublishedService:
    """A service with a port of the host, which the gateway or PAGES_DOOR publishes.

    Attributes:
        port: The variable of the port in .env.
        default_port: The default of that variable.
        service: The compose service; its health is the health of the page.
        image: The image's key in .env.
        page: The page's name in `status`; empty for a port without a page.
        profile: The compose profile of the service; empty if it always runs.
        turned_on_with: The profile that users choose for it, where `up` turns on `profile` itself.
        login: The secret with the password of user `admin`.
        is_optional: Whether the stack runs without it: no package contains it, so its image must be pulled.
    """

    port: str
    default_port: int
    service: str
    image: str
    page: str = ""
    profile: str = ""
    turned_on_with: str = ""
    login: str = ""
    is_optional: bool = False


LOGIN: Final = "observability_password"
"""The secret of the pages that have no log-in of their own: PAGES_DOOR asks for it."""

PUBLISHED: Final = (
    PublishedService("AIRFLOW_PORT", 8080, GATEWAY, "GATEWAY_IMAGE", "airflow", login="airflow_admin_password"),
    PublishedService("FLOWER_PORT", 5555, "flower", "AIRFLOW_IMAGE", "flower", "flower", login="flower_password"),
    PublishedService(
        "PROMETHEUS_PORT", 9090, "prometheus", "PROMETHEUS_IMAGE", "prometheus", OBSERVABILITY, login=LOGIN
    ),
    PublishedService(
        "ALERTMANAGER_PORT", 9093, "alertmanager-1", "ALERTMANAGER_IMAGE", "alertmanager", OBSERVABILITY, login=LOGIN
    ),
    PublishedService(
        "ALERTMANAGER_2_PORT", 9094, "alertmanager-2", "ALERTMANAGER_IMAGE", "", OBSERVABILITY, login=LOGIN
    ),
    PublishedService(
        "SLACK_STUB_PORT", 8025, "slack-stub", "AIRFLOW_IMAGE", "slack_stub", SLACK_STUB_PROFILE, OBSERVABILITY, LOGIN
    ),
    PublishedService(
        "GRAFANA_PORT",
        3000,
        "grafana",
        "GRAFANA_IMAGE",
        "grafana",
        "grafana",
        OBSERVABILITY,
        "grafana_admin_password",
        is_optional=True,
    ),
    PublishedService(
        "JAEGER_PORT", 16686, "jaeger", "JAEGER_IMAGE", "jaeger", "jaeger", OBSERVABILITY, LOGIN, is_optional=True
    ),
)
PAGES: Final = {published.page: published for published in PUBLISHED if published.page}
OPTIONAL: Final = tuple(published for published in PUBLISHED if published.is_optional)
"""`up` turns on their profiles with `observability` if their image is available."""


def chosen_profile(published: PublishedService) -> str:
    """Return the profile that users choose for a published service; empty if it always runs."""
    return published.turned_on_with or published.profile


def door(published: PublishedService) -> str:
    """Return the service that publishes a port."""
    return GATEWAY if published.service == GATEWAY else PAGES_DOOR


def published_with(profiles: Collection[str]) -> tuple[PublishedService, ...]:
    """Return the services whose ports are published with these profiles, which users choose."""
    doors = {GATEWAY} if set(profiles).isdisjoint(PAGES_DOOR_PROFILES) else {GATEWAY, PAGES_DOOR}
    return tuple(published for published in PUBLISHED if door(published) in doors)


def replicas_variable(service: str) -> str:
    """Return the variable in .env with the number of instances of a service."""
    return service.upper().replace("-", "_") + "_REPLICAS"


def page_urls(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the URL of each page whose profile is on, as users open it."""
    address = settings["BIND_ADDRESS"]
    host = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "localhost", "::1": "localhost"}.get(  # noqa: S104
        address, address
    )
    profiles = {"", *settings["COMPOSE_PROFILES"].split(",")}
    return {name: f"http://{host}:{settings[page.port]}" for name, page in PAGES.items() if page.profile in profiles}


def local_url(settings: Mapping[str, str], page: str = "airflow") -> str:
    """Return the URL by which this host reaches a page: an address, since a name may resolve to another family."""
    return local_address(settings, PAGES[page].port)


def local_address(settings: Mapping[str, str], port: str) -> str:
    """Return the URL by which this host reaches a published port.

    Args:
        settings: The settings of .env.
        port: The variable of the port.
    """
    address = settings["BIND_ADDRESS"]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)  # noqa: S104
    return f"http://{host}:{settings[port]}"
