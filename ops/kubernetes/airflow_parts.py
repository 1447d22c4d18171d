"""Airflow's components that the chart has not: the Execution API, maintenance and Flower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.kubernetes import manifests, translation, values
from ops.kubernetes.manifests import Pod
from ops.kubernetes.translation import API_PORT, EXECUTION_API

if TYPE_CHECKING:
    from ops.kubernetes.translation import Cluster, Manifest, Service

MAINTENANCE: Final = "maintenance"
FLOWER: Final = "flower"
RECREATE: Final = {"type": "Recreate"}
SHARED_SIZE: Final = "KUBERNETES_SHARED_SIZE"


def execution_api(cluster: Cluster) -> list[Manifest]:
    """Return the Execution API: apart from the UI, so that its load cannot stall tasks."""
    of = cluster.service(EXECUTION_API)
    alive = manifests.http_probe(
        API_PORT, "/execution/health", periodSeconds=translation.period(of), failureThreshold=translation.failures(of)
    )
    pod = Pod(
        EXECUTION_API,
        arguments=values.arguments(of),
        env=[NO_WAIT],
        ports=[("http", API_PORT)],
        probes={
            "startupProbe": manifests.started(alive),
            "livenessProbe": alive,
            "readinessProbe": alive | {"periodSeconds": 5, "failureThreshold": 2},
        },
        init=[wait_for_migrations(of)],
    )
    add_shared(of, pod)
    return [
        manifests.deployment(of, pod),
        manifests.service(EXECUTION_API, cluster, [("http", API_PORT)]),
        manifests.disruption_budget(EXECUTION_API, cluster),
    ]


def maintenance(cluster: Cluster) -> list[Manifest]:
    """Return the service that removes old rows, logs and artifacts. It restarts until the database is migrated."""
    of = cluster.service(MAINTENANCE)
    probe = translation.liveness(of)
    alive = {"exec": {"command": probe.pop("command")}, **probe}
    pod = Pod(
        MAINTENANCE,
        arguments=values.arguments(of),
        env=[NO_WAIT],
        probes={"livenessProbe": alive},
    )
    add_shared(of, pod)
    return [manifests.deployment(of, pod, RECREATE)]


def flower(cluster: Cluster) -> list[Manifest]:
    """Return Flower; `kubectl port-forward` opens its page."""
    of = cluster.service(FLOWER)
    alive = manifests.http_probe(
        5555, "/healthcheck", periodSeconds=translation.period(of), failureThreshold=translation.failures(of)
    )
    probes = {"startupProbe": manifests.started(alive), "livenessProbe": alive}
    pod = Pod(FLOWER, arguments=values.arguments(of), env=[NO_WAIT], ports=[("http", 5555)], probes=probes)
    return [manifests.deployment(of, pod, RECREATE), manifests.service(FLOWER, cluster, [("http", 5555)])]


NO_WAIT: Final = {"name": "CONNECTION_CHECK_MAX_COUNT", "value": "0"}
"""The image's entrypoint would start Airflow once more, to wait for the database and for the broker."""


def wait_for_migrations(of: Service) -> Manifest:
    """Return an init container that waits until the chart's hook has migrated the database."""
    return {
        "name": "wait-for-migrations",
        "image": of.service["image"],
        "imagePullPolicy": of.settings["KUBERNETES_PULL_POLICY"],
        "args": ["airflow", "db", "check-migrations", "--migration-wait-timeout=600"],
        "env": [*translation.as_list(translation.environment(of)), NO_WAIT],
        "resources": translation.resources(of),
        "securityContext": values.CONTAINER_SECURITY,
        "volumeMounts": [dict(translation.SCRATCH_MOUNT), translation.secrets_mount(of)],
    }


def add_shared(of: Service, pod: Pod) -> None:
    """Give a pod the mounts of its compose service."""
    mounts = translation.shared_mounts(of)
    pod.mounts += mounts
    pod.volumes += translation.claim_volumes(mounts)


def shared_claims(cluster: Cluster) -> list[Manifest]:
    """Return the claims of the volumes that pods of several nodes share."""
    storage_class = cluster.settings["KUBERNETES_SHARED_STORAGE_CLASS"]
    volumes = [translation.LOGS, translation.ARTIFACTS]
    if cluster.settings["KUBERNETES_DAGS"] == "volume":
        volumes.insert(0, translation.DAGS)
    return [
        manifests.manifest(
            "v1",
            "PersistentVolumeClaim",
            translation.claim(volume),
            cluster,
            spec={
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": cluster.settings[SHARED_SIZE]}},
                **({"storageClassName": storage_class} if storage_class else {}),
            },
        )
        for volume in volumes
    ]
