"""DAGs from Git and task logs in S3: what pods need of each, and the settings that belong together.

DAGs come by the chart's git-sync: it needs no package in the image, and a Git server that is down stops no running DAG.
Airflow's Git bundles fetch each new version for each task, and delete a worker's clone when that fails.

Log-ins are Secrets that the operator creates. git-sync is a container of its own, so tasks cannot read its log-in; the
supervisor of a task uploads its log, so tasks can read that of the logs.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ops.setting_checks import Kind, Problem, matching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Manifest = dict[str, Any]

GIT, S3, VOLUME = "git", "s3", "volume"
GIT_NETWORK, LOGS_NETWORK = "git", "remote-logs"
"""Networks that Docker lacks: who is on them reaches the Git server, or the storage of the logs."""
GIT_CLIENTS: Final = ("dag-processor", "triggerer", "worker")
"""The components to which the chart adds git-sync."""
LOG_CLIENTS: Final = ("api-server", "triggerer", "worker")
SSH_ADDRESS: Final = re.compile(r"(?:ssh://)?[\w.-]+@(?P<host>[\w.-]+)(?::(?P<port>\d+)/|[:/]).+")
REPOSITORY: Final = matching(
    rf"https://[^\s/@]+/\S+|{SSH_ADDRESS.pattern.replace('?P<host>', '?:').replace('?P<port>', '?:')}",
    "an address that begins with https:// or git@, without a password",
)

SETTINGS: Final[dict[str, tuple[str, Kind]]] = {
    "KUBERNETES_DAGS": (GIT, matching(f"{VOLUME}|{GIT}", f"{GIT} or {VOLUME}", is_required=True)),
    "KUBERNETES_GIT_REPOSITORY": ("", REPOSITORY),
    "KUBERNETES_GIT_REF": ("main", matching(r"[\w./-]+", "a branch, a tag or a commit", is_required=True)),
    "KUBERNETES_GIT_FOLDER": ("dags", matching(r"[\w.-][\w./-]*", "a folder of the repository")),
    "KUBERNETES_GIT_SECRET": ("", matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a name of Kubernetes")),
    "KUBERNETES_GIT_KNOWN_HOSTS": ("", matching(r"\S+ \S+ \S+", "a line of known_hosts: host, type and key")),
    "KUBERNETES_LOGS": (S3, matching(f"{VOLUME}|{S3}", f"{S3} or {VOLUME}", is_required=True)),
    "KUBERNETES_LOGS_FOLDER": (
        "",
        matching(r"s3://[a-z0-9][a-z0-9.-]+(/[^\s/]+)*", "an address such as s3://bucket/folder"),
    ),
    "KUBERNETES_LOGS_ENDPOINT": ("", matching(r"https?://[^\s/@]+", "an address such as https://s3.example.com")),
    "KUBERNETES_LOGS_REGION": ("", matching(r"[a-z0-9-]+", "a region")),
    "KUBERNETES_LOGS_SECRET": ("", matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a name of Kubernetes")),
    "KUBERNETES_LOGS_CA_SECRET": ("", matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a name of Kubernetes")),
}
"""The default and the accepted values of each setting, in the order of README.md."""


def has_git(settings: Mapping[str, str]) -> bool:
    """Return whether DAGs come from Git."""
    return settings["KUBERNETES_DAGS"] == GIT


def has_s3(settings: Mapping[str, str]) -> bool:
    """Return whether task logs are in S3."""
    return settings["KUBERNETES_LOGS"] == S3


def problems(settings: Mapping[str, str]) -> Iterator[Problem]:
    """Yield each setting that is missing beside another one, or that nothing reads."""
    repository = settings["KUBERNETES_GIT_REPOSITORY"]
    if has_git(settings) and not repository:
        yield Problem(
            "KUBERNETES_GIT_REPOSITORY", "DAGs come from Git", "set it to your repository, or KUBERNETES_DAGS to volume"
        )
    if has_git(settings) and is_ssh(repository):
        # Without the host's key anybody on the way can serve DAGs.
        for key in ("KUBERNETES_GIT_SECRET", "KUBERNETES_GIT_KNOWN_HOSTS"):
            if not settings[key]:
                yield Problem(key, "the repository is read by SSH", "set it, or use an address with https://")
    if has_s3(settings) and not settings["KUBERNETES_LOGS_FOLDER"]:
        yield Problem(
            "KUBERNETES_LOGS_FOLDER",
            "task logs are in S3",
            "set it to s3://BUCKET/FOLDER, or KUBERNETES_LOGS to volume",
        )
    if settings["KUBERNETES_LOGS_CA_SECRET"] and not settings["KUBERNETES_LOGS_ENDPOINT"].startswith("https://"):
        yield Problem("KUBERNETES_LOGS_CA_SECRET", "nothing is verified", "set KUBERNETES_LOGS_ENDPOINT to https://…")


def secret_keys(settings: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the keys that each Secret of the operator must have, by its name."""
    keys: dict[str, tuple[str, ...]] = {}
    if has_git(settings) and settings["KUBERNETES_GIT_SECRET"]:
        by_ssh = is_ssh(settings["KUBERNETES_GIT_REPOSITORY"])
        # The chart names each twice, for two versions of git-sync.
        log_in = tuple(f"{prefix}_{name}" for prefix in ("GITSYNC", "GIT_SYNC") for name in ("USERNAME", "PASSWORD"))
        keys[settings["KUBERNETES_GIT_SECRET"]] = ("gitSshKey",) if by_ssh else log_in
    if has_s3(settings):
        for setting, key in (("KUBERNETES_LOGS_SECRET", CREDENTIALS), ("KUBERNETES_LOGS_CA_SECRET", AUTHORITY)):
            if name := settings[setting]:
                keys[name] = (*keys.get(name, ()), key)
    return keys


def networks(component: str, settings: Mapping[str, str]) -> list[str]:
    """Return the networks that a component is on besides those of its compose service."""
    git = [GIT_NETWORK] if has_git(settings) and component in GIT_CLIENTS else []
    return git + ([LOGS_NETWORK] if has_s3(settings) and component in LOG_CLIENTS else [])


def ports(settings: Mapping[str, str]) -> dict[str, int]:
    """Return the port outside that the pods of each of these networks reach."""
    reached = {}
    if has_git(settings):
        reached[GIT_NETWORK] = git_port(settings["KUBERNETES_GIT_REPOSITORY"])
    if has_s3(settings):
        endpoint = urlsplit(settings["KUBERNETES_LOGS_ENDPOINT"])
        reached[LOGS_NETWORK] = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    return reached


# ---- Git


def is_ssh(repository: str) -> bool:
    """Return whether a repository is read by SSH."""
    return SSH_ADDRESS.fullmatch(repository) is not None


def git_port(repository: str) -> int:
    """Return the port of a repository's server."""
    if match := SSH_ADDRESS.fullmatch(repository):
        return int(match["port"] or 22)
    return urlsplit(repository).port or 443


def git_sync(settings: Mapping[str, str]) -> Manifest:
    """Return the chart's values of its git-sync."""
    repository, secret = settings["KUBERNETES_GIT_REPOSITORY"], settings["KUBERNETES_GIT_SECRET"]
    log_in = {"sshKeySecret" if is_ssh(repository) else "credentialsSecret": secret} if secret else {}
    known_hosts = settings["KUBERNETES_GIT_KNOWN_HOSTS"]
    return {
        "enabled": True,
        "repo": repository,
        "ref": settings["KUBERNETES_GIT_REF"],
        "rev": "",
        "branch": "",
        "subPath": settings["KUBERNETES_GIT_FOLDER"],
        "period": "10s",  # as REFRESH_INTERVAL of the DAG processor
        **log_in,
        **({"knownHosts": known_hosts} if is_ssh(repository) else {}),
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        "securityContexts": {
            # Not read-only: git-sync adds its user to /etc/passwd, which SSH needs.
            "container": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        },
    }


# ---- S3

CONNECTION: Final = "airflow_ha_logs"
CREDENTIALS, AUTHORITY = "credentials", "ca.crt"
"""The keys of the operator's Secrets: a credentials file of AWS, and a certificate."""
PROFILE: Final = "airflow-logs"
"""The profile in that file: a task that asks for the default one gets none."""
FOLDER: Final = "/etc/airflow-ha/remote-logs"


def log_environment(component: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a component reads or writes logs in S3."""
    if not has_s3(settings) or component not in LOG_CLIENTS:
        return {}
    extra: dict[str, str] = {}
    if settings["KUBERNETES_LOGS_SECRET"]:
        extra["profile_name"] = PROFILE
    if settings["KUBERNETES_LOGS_CA_SECRET"]:
        extra["verify"] = f"{FOLDER}/{AUTHORITY}"
    if settings["KUBERNETES_LOGS_ENDPOINT"]:
        extra["endpoint_url"] = settings["KUBERNETES_LOGS_ENDPOINT"]
    if settings["KUBERNETES_LOGS_REGION"]:
        extra["region_name"] = settings["KUBERNETES_LOGS_REGION"]
    return {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": settings["KUBERNETES_LOGS_FOLDER"],
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": CONNECTION,
        # A pod's own folder would fill.
        "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "True",
        f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps({"conn_type": "aws", "extra": extra}),
        **({"AWS_SHARED_CREDENTIALS_FILE": f"{FOLDER}/{CREDENTIALS}"} if "profile_name" in extra else {}),
    }


def log_volumes(component: str, settings: Mapping[str, str]) -> list[Manifest]:
    """Return the volume with the log-in to S3 and the certificate of its authority; none without either."""
    if not log_environment(component, settings):
        return []
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": key}]}}
        for setting, key in (("KUBERNETES_LOGS_SECRET", CREDENTIALS), ("KUBERNETES_LOGS_CA_SECRET", AUTHORITY))
        if (name := settings[setting])
    ]
    return [{"name": LOGS_NETWORK, "projected": {"defaultMode": 0o440, "sources": sources}}] if sources else []


def log_mounts(component: str, settings: Mapping[str, str]) -> list[Manifest]:
    """Return the mount of that volume."""
    return [
        {"name": volume["name"], "mountPath": FOLDER, "readOnly": True} for volume in log_volumes(component, settings)
    ]
