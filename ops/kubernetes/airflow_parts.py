"""What the chart has not of Airflow: the gateway, the Execution API, maintenance and Flower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.kubernetes import manifests, remote_parts, translation, values
from ops.kubernetes.manifests import Pod
from ops.kubernetes.translation import API_PORT, API_SERVER, EXECUTION_API, Service
from ops.services import GATEWAY

if TYPE_CHECKING:
    from ops.kubernetes.translation import Cluster, Manifest

MAINTENANCE: Final = "maintenance"
FLOWER: Final = "flower"
RECREATE: Final = {"type": "Recreate"}
SHARED_SIZE: Final = "KUBERNETES_SHARED_SIZE"
GATEWAYS: Final = 2
TASKS_PORT, GATEWAY_METRICS_PORT = 8081, 8405
"""The gateway's port for tasks, and the one for Prometheus."""
DOCKER_CHECK: Final = "/usr/local/bin/check-http.sh"


def gateway(cluster: Cluster) -> list[Manifest]:
    """Return the gateway, two of it, and Services without an address that list the servers behind it.

    It has the limits of log-ins and of requests, and the door of monitoring_dag's findings. It checks each server every
    second, and so leaves out a lost one long before Kubernetes does.
    """
    on_docker = cluster.service(GATEWAY)
    deploy = on_docker.service["deploy"] | {"replicas": GATEWAYS}
    of = Service(GATEWAY, {**on_docker.service, "deploy": deploy}, cluster)
    mounted = manifests.files(of, GATEWAY, [DOCKER_CHECK])
    probe = manifests.http_probe(TASKS_PORT, "/gateway-health", periodSeconds=translation.period(of))
    ports = [("http", API_PORT), ("tasks", TASKS_PORT), ("metrics", GATEWAY_METRICS_PORT)]
    pod = Pod(
        GATEWAY,
        command=[str(word) for word in of.service["entrypoint"]],
        arguments=[str(word) for word in of.service["command"]],
        env=[{"name": "SERVICE_DOMAIN", "value": service_domain(cluster)}],
        ports=ports,
        probes={
            "livenessProbe": probe | {"failureThreshold": translation.failures(of)},
            "readinessProbe": probe | {"periodSeconds": 5, "failureThreshold": 2},
        },
        volumes=mounted.volumes,
        mounts=mounted.mounts,
        annotations={"airflow-ha/files": mounted.digest},
        container={"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", finish_requests(of)]}}}},
    )
    return [
        manifests.config_map(manifests.files_name(GATEWAY), cluster, mounted.data),
        manifests.deployment(of, pod),
        manifests.service(GATEWAY, cluster, ports),
        manifests.disruption_budget(GATEWAY, cluster),
        manifests.service(API_SERVER, cluster, [("http", API_PORT)], clusterIP="None"),
        manifests.service(EXECUTION_API, cluster, [("http", API_PORT)], clusterIP="None"),
    ]


def service_domain(cluster: Cluster) -> str:
    """Return what completes the name of a Service, for a program that knows no search domains."""
    return f".{cluster.settings['KUBERNETES_NAMESPACE']}.svc.{cluster.settings['KUBERNETES_CLUSTER_DOMAIN']}"


def finish_requests(of: Service) -> str:
    """Return the script that ends HAProxy as `stop_signal` does on Docker: Kubernetes sends only SIGTERM.

    The container ends with HAProxy, and this script with the container.
    """
    signal = str(of.service["stop_signal"]).removeprefix("SIG")
    return f"sleep {manifests.DRAIN_SECONDS}; kill -{signal} 1; sleep {of.stop_seconds}"


def execution_api(cluster: Cluster) -> list[Manifest]:
    """Return the Execution API: apart from the UI, so that its load cannot stall tasks. The gateway has its Service."""
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
    pod.volumes += translation.shared_volumes(mounts, of.settings)


def shared_claims(cluster: Cluster) -> list[Manifest]:
    """Return the claims of the volumes that pods of several nodes share."""
    storage_class = cluster.settings["KUBERNETES_SHARED_STORAGE_CLASS"]
    settings = cluster.settings
    volumes = [
        *([] if remote_parts.has_git(settings) else [translation.DAGS]),
        *([] if remote_parts.has_s3(settings) else [translation.LOGS]),
        translation.ARTIFACTS,
    ]
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
