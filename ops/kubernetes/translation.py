"""Parts of a pod from a compose service: environment, limits, secrets, probes, volumes, networks.

What Kubernetes does in another way than Docker, and why:

- Secrets are at SECRETS_FOLDER, since Kubernetes mounts tokens of its own below /run/secrets.
- An Ingress, or a Service of your own, publishes the gateway: it has no port of a node.
- A pod has one address. Network policies, by labels named after compose's networks, replace the networks.
- The kubelet limits processes for all pods alike (`podPidsLimit`); `pids` is dropped.
- CPU weights become requests with the same ratios.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.sizes import MIB
from ops.container_limits import size
from ops.kubernetes import remote_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Manifest = dict[str, Any]

SECRETS_FOLDER: Final = "/etc/airflow-ha/secrets"
"""Mount point of secrets in pods of the Airflow image. Other images expect DOCKER_SECRETS."""
DOCKER_SECRETS: Final = "/run/secrets"
PREFIX: Final = "airflow-ha"
"""The first word of the names of what is not the chart's."""
NETWORK_LABEL: Final = "network.airflow-ha"
"""The prefix of a pod's labels that name compose's networks."""
API_SERVER, EXECUTION_API = "api-server", "execution-api"
API_PORT: Final = 8080
GUARD: Final = "/usr/local/bin/restart-when-unhealthy.sh"
DEFAULT_CPU_WEIGHT: Final = 1024
WEIGHT_PER_MILLICORE: Final = 20
"""Docker's default weight, 1024, becomes a request of 51 millicores, and all of `data-ha` requests 3 cores: of three
nodes of 2 cores any two hold it."""
SECONDS: Final = {"s": 1, "m": 60, "h": 3600}

DAGS, LOGS, ARTIFACTS = "dags", "logs", "artifacts"
"""The shared volumes."""
LOGS_FOLDER: Final = "/opt/airflow/logs"
TASK_LOGS: Final = "/opt/airflow/task-logs"
"""The chart mounts a folder that every component may write at LOGS_FOLDER. Task logs are here, where API servers may
only read."""
MOUNTS: Final = {
    "/opt/airflow/dags": (DAGS, ""),
    "/opt/airflow/plugins": (DAGS, "plugins"),
    LOGS_FOLDER: (LOGS, ""),
    "/opt/airflow/artifacts": (ARTIFACTS, ""),
}
"""The shared volume and the folder in it, by the mount point on Docker."""


@dataclass(frozen=True)
class Cluster:
    """What everything for a cluster is derived from.

    Attributes:
        compose: compose/.
        model: The compose model with these settings.
        settings: The settings of the cluster with those that follow from them.
    """

    compose: Path
    model: Mapping[str, Any]
    settings: Mapping[str, str]

    @property
    def release(self) -> str:
        """The name of the chart's release, with which the names of its objects begin."""
        return self.settings["KUBERNETES_RELEASE"]

    @property
    def profiles(self) -> set[str]:
        """The compose profiles that are on."""
        return set(self.settings["COMPOSE_PROFILES"].split(","))

    def service(self, name: str) -> Service:
        """Return a service of the compose model."""
        return Service(name, self.model["services"][name], self)

    def file(self, name: str) -> str:
        """Return the text of a file in compose/, which a service mounts."""
        return (self.compose / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Service:
    """A service of the compose model.

    Attributes:
        name: The compose service, and the component in labels.
        service: Its part of the model.
        cluster: The cluster.
    """

    name: str
    service: Mapping[str, Any]
    cluster: Cluster

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of the cluster."""
        return self.cluster.settings

    @property
    def replicas(self) -> int:
        """The number of instances."""
        return int(self.service["deploy"].get("replicas") or 1)

    @property
    def networks(self) -> list[str]:
        """The compose networks of the service."""
        return sorted(self.service.get("networks") or [])

    @property
    def is_airflow(self) -> bool:
        """Whether the service runs the Airflow image."""
        return bool(self.service["image"] == self.settings["AIRFLOW_IMAGE"])

    @property
    def secrets_folder(self) -> str:
        """The mount point of its secrets."""
        return SECRETS_FOLDER if self.is_airflow else DOCKER_SECRETS

    @property
    def stop_seconds(self) -> int:
        """The seconds that a stopping container has; Docker's default is 10."""
        return duration(str(self.service.get("stop_grace_period", "10s")))


def duration(text: str) -> int:
    """Return the seconds of a duration such as 90s, 10m or 1h30m."""
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


# ---- environment


def environment(of: Service) -> dict[str, str]:
    """Return the environment of a service, with the addresses and paths of Kubernetes."""
    values = {key: in_cluster(of, str(value)) for key, value in of.service["environment"].items()}
    return values | ({"AIRFLOW_HA_SECRETS_FOLDER": SECRETS_FOLDER} if of.is_airflow else {})


def in_cluster(of: Service, text: str) -> str:
    """Return a text of a compose service with the paths and names of Kubernetes."""
    own = f"{of.name}.monitoring"  # an address that the service listens on
    if text == own:
        return "0.0.0.0"  # noqa: S104
    return text.replace(DOCKER_SECRETS, of.secrets_folder).replace(f"{own}:", ":").replace(".monitoring:", ":")


def as_list(values: Mapping[str, str]) -> list[Manifest]:
    """Return an environment in the form of a container."""
    return [{"name": name, "value": value} for name, value in values.items()]


# ---- limits


def resources(of: Service) -> Manifest:
    """Return requests and limits. Memory is reserved as a whole, so that no node promises more than it has."""
    memory = f"{(size(str(of.service['deploy']['resources']['limits']['memory'])) or 0) // MIB}Mi"
    weight = int(of.service.get("cpu_shares", DEFAULT_CPU_WEIGHT))
    return {
        "requests": {"cpu": f"{round(weight / WEIGHT_PER_MILLICORE)}m", "memory": memory},
        "limits": {"memory": memory},
    }


# ---- secrets


def secret_name(reader: str) -> str:
    """Return the name of the Secret with a reader's files (secrets_store.READERS)."""
    return f"{PREFIX}-{reader}"


def secret_items(of: Service) -> dict[str, list[str]]:
    """Return the files that a service reads, by reader."""
    items: dict[str, list[str]] = {}
    for name in of.service.get("secrets") or []:
        reader = of.cluster.model["secrets"][name]["file"].split("/")[-2]
        items.setdefault(reader, []).append(name)
    return items


def secrets_volume(of: Service, others: Iterable[Manifest] = (), without: Iterable[str] = ()) -> Manifest:
    """Return the volume of a service's secrets.

    Args:
        of: The service.
        others: Further sources of the volume.
        without: The secrets that only Docker needs.
    """
    left_out = set(without)
    sources = [
        {
            "secret": {
                "name": secret_name(reader),
                "items": [{"key": name, "path": name} for name in names if name not in left_out],
            }
        }
        for reader, names in secret_items(of).items()
    ]
    return {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": [*sources, *others]}}


def secrets_mount(of: Service) -> Manifest:
    """Return the mount of a service's secrets."""
    return {"name": "secrets", "mountPath": of.secrets_folder, "readOnly": True}


# ---- volumes


def shared_mounts(of: Service) -> list[Manifest]:
    """Return the mounts of DAGs, plugins, logs and artifacts that a service has, as writable as on Docker.

    With DAGs from Git the chart mounts them, and plugins are in the image.
    """
    from_git = remote_parts.has_git(of.settings)
    mounts = []
    for mounted in of.service.get("volumes") or []:
        target, read_only = (mounted[:-3], True) if mounted.endswith(":ro") else (mounted, False)
        target = target.rpartition(":")[2]
        volume, folder = MOUNTS.get(target, ("", ""))
        if not volume or (volume == DAGS and from_git):
            continue
        # Not the bare name: the chart has volumes `logs` and `dags` of its own.
        mount = {"name": claim(volume), "mountPath": target, "readOnly": read_only}
        mounts.append(mount | ({"subPath": folder} if folder else {}))
    return mounts


def claim(volume: str) -> str:
    """Return the name of the claim of a shared volume."""
    return f"{PREFIX}-{volume}"


def shared_volumes(mounts: Iterable[Manifest], settings: Mapping[str, str]) -> list[Manifest]:
    """Return the shared volumes that mounts need. With logs in S3 each pod has a folder of its own until the upload."""
    own = {"emptyDir": {"sizeLimit": settings["KUBERNETES_SHARED_SIZE"]}}
    return [
        {"name": name}
        | (
            own
            if name == claim(LOGS) and remote_parts.has_s3(settings)
            else {"persistentVolumeClaim": {"claimName": name}}
        )
        for name in dict.fromkeys(mount["name"] for mount in mounts)
    ]


def scratch_volume(of: Service) -> Manifest:
    """Return /tmp of a service: in memory with compose's size, on disk where compose has a volume."""
    for mounted in of.service.get("tmpfs") or []:
        if mounted.startswith("/tmp:"):  # noqa: S108
            limit = re.search(r"size=(\d+)m", mounted)
            assert limit, mounted  # noqa: S101 (compose/common.yaml: every tmpfs has a size)
            return {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": f"{limit[1]}Mi"}}
    return {"name": "tmp", "emptyDir": {}}


SCRATCH_MOUNT: Final[Mapping[str, str]] = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108


# ---- probes


def health_command(of: Service) -> list[str]:
    """Return the check that restart-when-unhealthy.sh runs on Docker."""
    test = of.service["healthcheck"]["test"]
    return list(test[test.index(GUARD) + 2 :])


def failures(of: Service) -> int:
    """Return the failed checks in a row after which the container is restarted."""
    test = of.service["healthcheck"]["test"]
    return int(test[test.index(GUARD) + 1])


def period(of: Service) -> int:
    """Return the seconds between two checks."""
    return duration(str(of.service["healthcheck"]["interval"]))


PROBE_TIMEOUT: Final = 10
"""Seconds. The guard gives a check 8 s, and `kubectl exec` of a container starts later than Docker's on a busy node."""
STARTUP_SECONDS: Final = 300
"""As `start_period` in compose/common.yaml."""


def liveness(of: Service) -> Manifest:
    """Return the liveness probe of an Airflow component: exit code 75, a dependency is down, restarts nothing."""
    command = health_command(of)
    at = command.index("airflow_ha.health") + 1
    return {
        "command": [*command[:at], "liveness", *command[at:]],
        "initialDelaySeconds": 120,  # as GUARD_GRACE of the guard
        "periodSeconds": period(of),
        "failureThreshold": failures(of),
        "timeoutSeconds": PROBE_TIMEOUT,
    }


# ---- placement


def network_labels(of: Service) -> dict[str, str]:
    """Return the labels by which network policies select a pod."""
    return {
        f"{NETWORK_LABEL}/{network}": "true" for network in [*of.networks, *remote_parts.networks(of.name, of.settings)]
    }


def spread(labels: Mapping[str, str], *, hard: bool = False) -> list[Manifest]:
    """Return the constraint that spreads the pods of one revision over the nodes.

    `matchLabelKeys`: without it the pods of the former revision count, and an upgrade gathers all on one node.

    Args:
        labels: They select the pods.
        hard: Whether a pod waits rather than run on a node with too many.
    """
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(labels)},
    }
    return [constraint if hard else constraint | {"matchLabelKeys": ["pod-template-hash"]}]


def apart(labels: Mapping[str, str]) -> Manifest:
    """Return the affinity that prefers nodes without a pod of the same revision."""
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": dict(labels)},
        "matchLabelKeys": ["pod-template-hash"],
    }
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }


def tolerations(settings: Mapping[str, str]) -> list[Manifest]:
    """Return how long a pod stays bound to a node that is down. Kubernetes' default is 300 s."""
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": int(settings["KUBERNETES_NODE_TOLERATION_SECONDS"]),
        }
        for state in ("not-ready", "unreachable")
    ]
