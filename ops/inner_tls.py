"""TLS on the links between the stack's own services, with certificates of its private authority (`TLS=on`).

The servers' files are in a reader's folder of their own, the clients' in those of external_data.py: both sides use the
same settings as for the operator's own Postgres and Redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import private_authority
from ops.errors import StackError
from ops.private_authority import AUTHORITY, Certificate
from ops.services import ETCD_NODES, POSTGRES_NODES, REDIS_NODES, SENTINELS
from ops.settings_file import has_own_data, profiles

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from ops.project import Project

SETTING: Final = "TLS"
DERIVED: Final = "DATA_TLS"
"""The setting that selects the compose files of the links to Postgres and Redis (compose/tls)."""
ON, OFF = "on", "off"
SERVERS_READER: Final = "tls-data"
"""The folder of the files of Postgres, Redis and the backup services under secrets/mounted/."""
READERS: Final = {SERVERS_READER: 999}
CA: Final = "tls_ca.pem"
LOOPBACK: Final = ("localhost", "127.0.0.1")
"""Health checks and ./ops/stack connect inside the container."""
SINGLE: Final = ("postgres", "redis")
CLIENTS: Final = ("airflow", "postgres-exporter", "redis-exporter", "backup")
CERTIFICATES: Final = (
    *(Certificate(name, (name, *LOOPBACK)) for name in SINGLE),
    *map(Certificate, CLIENTS),
)
DATA_SERVICES: Final = (*SINGLE, *POSTGRES_NODES, *ETCD_NODES, *REDIS_NODES, *SENTINELS)


def is_on(settings: Mapping[str, str]) -> bool:
    """Return whether the links between the stack's own services are encrypted."""
    return settings.get(SETTING) == ON


def covers_data(settings: Mapping[str, str]) -> bool:
    """Return whether the links to the stack's own Postgres and Redis are encrypted."""
    return is_on(settings) and has_own_data(settings)


def check(project: Project, settings: Mapping[str, str], running: Collection[str]) -> None:
    """Refuse TLS where a link has none yet, and a change of it while a server runs.

    Args:
        project: The stack.
        settings: Of .env; DATA_TLS is that of the last `up`.
        running: The services with a running container.

    Raises:
        StackError: The error names the setting.
    """
    where = project.shown(project.env_file)
    if is_on(settings) and "data-ha" in profiles(settings):
        raise StackError(
            "cannot use TLS=on with the profile data-ha: its nodes have no TLS between each other",
            where=where,
            hint="delete TLS, or use the profile data",
        )
    changes = (settings.get(DERIVED) == ON) != covers_data(settings)
    if has_own_data(settings) and changes and not set(running).isdisjoint(DATA_SERVICES):
        raise StackError(
            "cannot change TLS while Postgres and Redis run: running clients could not connect any more",
            where=where,
            hint="run ./ops/stack down, then ./ops/stack up",
        )


def renew(project: Project, settings: Mapping[str, str]) -> list[str]:
    """Sign the certificates that are missing or near their expiry, and return their names."""
    return private_authority.renew(project, CERTIFICATES) if covers_data(settings) else []


def expiries(project: Project, settings: Mapping[str, str]) -> dict[str, datetime]:
    """Return when the authority and each certificate expires, by name; empty without TLS."""
    return private_authority.expiries(project) if covers_data(settings) else {}


def derived(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that compose files read and that follow from TLS."""
    return {DERIVED: ON if covers_data(settings) else OFF}


def data_clients(project: Project) -> dict[str, str]:
    """Return the files of the clients of Postgres and Redis, by the names that external_data.py gives them."""
    authority, airflow = (private_authority.read(project, name) for name in (AUTHORITY, "airflow"))
    files: dict[str, str] = {}
    for link in SINGLE:
        exporter = private_authority.read(project, f"{link}-exporter")
        files |= {f"{link}_ca.pem": authority, f"{link}_client.pem": airflow, f"{link}_exporter_client.pem": exporter}
    return files


def mounted_files(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each server's file, empty without TLS, by its path under secrets/mounted/."""
    certificates = {CA: AUTHORITY, "backup_client.pem": "backup"}
    certificates |= {f"{name}_server.pem": name for name in SINGLE}
    return {
        f"{SERVERS_READER}/{file}": private_authority.read(project, name) if covers_data(settings) else ""
        for file, name in certificates.items()
    }
