"""The users of Redis and its Sentinels: their rights from compose/, and what each client mounts to log in.

An external Redis has the users that the operator names: by default every client has the same one.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ops import external_data
from ops.services import REDIS_NODES, SENTINELS
from ops.settings_file import has_own_data, profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project
    from ops.rotation_state import InUse

CLIENTS: Final = {"scheduler": "scheduler", "worker": "celery", "flower": "flower"}
"""The first word of the files that each Airflow component mounts, by its user."""
EXPORTER: Final = "exporter"
USERS_FILE: Final = "redis/redis_users.acl"
AUTH_FILE: Final = "redis/redis_auth.conf"
SENTINEL_FILE: Final = "redis/sentinel_auth.conf"

SENTINEL_TIMEOUTS: Final = {"socket_timeout": 2, "socket_connect_timeout": 2}
"""Seconds for the answer of one Sentinel before the client queries the next Sentinel."""


def secret_name(user: str) -> str:
    """Return the name of the secret with a user's password.

    Workers keep the password that every client had in older versions: tasks could read it.
    """
    return "redis_password" if user == "worker" else f"redis_{user}_password"


def mounted_files(project: Project, settings: Mapping[str, str], in_use: InUse) -> dict[str, str]:
    """Return the text of each file about Redis that containers mount, by its path under secrets/mounted/."""
    secrets = in_use.current
    files = {
        USERS_FILE: with_hashes(project, "redis/users.acl", in_use),
        AUTH_FILE: f"masteruser replica\nmasterauth {secrets[secret_name('replica')]}\n",
        SENTINEL_FILE: sentinel_auth(project, in_use),
        "redis/redis_health_password": secrets["redis_health_password"],
        "redis/redis_operator_password": secrets["redis_operator_password"],
        "redis-exporter/redis_exporter_passwords.json": json.dumps(exporter_passwords(settings, secrets)),
    }
    tls = external_data.redis_options(settings, external_data.files(project, settings))
    for user, prefix in CLIENTS.items():
        url, sentinels = broker(user, settings, secrets, tls)
        files |= {f"airflow/{prefix}_broker_url": url, f"airflow/{prefix}_sentinel_kwargs": json.dumps(sentinels)}
    return files


def with_hashes(project: Project, file: str, in_use: InUse) -> str:
    """Return the users in a file of compose/ with the hashes of the accepted passwords, without comments."""
    lines = (project.compose_directory / file).read_text(encoding="utf-8").splitlines()

    def hashed(user: re.Match[str]) -> str:
        digests = {hashlib.sha256(text.encode()).hexdigest() for text in in_use.accepted(secret_name(user[1]))}
        # In one order, so that the file stays the same when clients change to another of these passwords.
        return " #".join(sorted(digests))

    return re.sub(r"<(\w+)>", hashed, "".join(f"{line}\n" for line in lines if not line.startswith("#")))


def sentinel_auth(project: Project, in_use: InUse) -> str:
    """Return a Sentinel's users, and its log-ins at Redis and at the other Sentinels."""
    password = in_use.current[secret_name("sentinel")]
    log_ins = ("auth-user airflow sentinel", f"auth-pass airflow {password}")
    of_peers = ("sentinel-user sentinel", f"sentinel-pass {password}")
    lines = "".join(f"sentinel {line}\n" for line in (*log_ins, *of_peers))
    return with_hashes(project, "sentinel/users.conf", in_use) + lines


def exporter_passwords(settings: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the exporter's password by the URL of each node, which includes its user."""
    scheme = "rediss" if external_data.uses_tls(settings, "redis") else "redis"
    if not has_own_data(settings):
        user, name = external_data.redis_log_in(EXPORTER, settings)
        return {f"{scheme}://{f'{user}@' if user else ''}{address(settings)}": secrets[name]}
    nodes = [f"{node}:6379" for node in REDIS_NODES] if "data-ha" in profiles(settings) else [address(settings)]
    return {f"{scheme}://{EXPORTER}@{node}": secrets[secret_name(EXPORTER)] for node in nodes}


def address(settings: Mapping[str, str]) -> str:
    """Return host and port of the single or external Redis."""
    return f"{settings['REDIS_HOST']}:{settings['REDIS_PORT']}"


def broker(
    user: str, settings: Mapping[str, str], secrets: Mapping[str, str], tls: str = ""
) -> tuple[str, dict[str, str | int]]:
    """Return Celery's broker URL of a user, and its log-in at the Sentinels, empty without Sentinels.

    Args:
        user: The stack's user of Redis, which is also the name of the client.
        settings: Of .env.
        secrets: Every secret that `up` generates.
        tls: The query of the URL with TLS.
    """
    # An operator's own password may contain characters that a URL must quote.
    scheme = "rediss" if tls else "redis"
    if not has_own_data(settings):
        name, secret = external_data.redis_log_in(user, settings)
        return f"{scheme}://{quote(name, safe='')}:{quote(secrets[secret], safe='')}@{address(settings)}/0{tls}", {}
    password = secrets[secret_name(user)]
    login = f"{user}:{quote(password, safe='')}"
    if "data-ha" not in profiles(settings):
        return f"{scheme}://{login}@{address(settings)}/0{tls}", {}
    # The first host is the DNS name that all Sentinels share: Flower uses only the first, and any live one will do.
    hosts = ("sentinel", *SENTINELS)
    url = ";".join(f"sentinel://{login}@{host}:26379/0" for host in hosts)
    return url, {"username": user, "password": password, **SENTINEL_TIMEOUTS}
