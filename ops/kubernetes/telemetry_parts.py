"""statsd-exporter, the OpenTelemetry collector and the exporters of Postgres and Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.kubernetes import manifests, translation
from ops.kubernetes.airflow_parts import RECREATE
from ops.kubernetes.manifests import Pod, http_probe

if TYPE_CHECKING:
    from ops.kubernetes.translation import Cluster, Manifest, Service

STATSD, COLLECTOR = "statsd-exporter", "otel-collector"
POSTGRES_EXPORTER, REDIS_EXPORTER = "postgres-exporter", "redis-exporter"
PORTS: Final = {
    STATSD: [("statsd", 9125), ("statsd-udp", 9125), ("metrics", 9102)],
    COLLECTOR: [
        ("otlp-grpc", 4317),
        ("otlp-http", 4318),
        ("relay-udp", 8125),
        ("metrics", 8888),
        ("statsd-metrics", 8889),
        ("own-metrics", 8890),
    ],
    POSTGRES_EXPORTER: [("metrics", 9187)],
    REDIS_EXPORTER: [("metrics", 9121)],
}
DOCKER_CHECKS: Final = ("/usr/local/bin/check-relay.sh", "/usr/local/bin/check-log-in.sh")
"""Scripts that Docker's health checks run."""
PROBES: Final = {
    STATSD: (9102, "/-/healthy"),
    COLLECTOR: (13133, "/"),
    REDIS_EXPORTER: (9121, "/health"),
}
"""Port and path of the health of each; postgres-exporter asks for a log-in on every path."""


def telemetry(cluster: Cluster) -> list[Manifest]:
    """Return the receivers of metrics and traces, and the exporters of the data tier, also of an external one."""
    return [part for name in PORTS for part in receiver(cluster.service(name))]


def receiver(of: Service) -> list[Manifest]:
    """Return the Deployment of one of them, with its files and its Service."""
    mounted = manifests.files(of, of.name, DOCKER_CHECKS)
    pod = Pod(
        of.name,
        command=[str(word) for word in of.service["entrypoint"]],
        arguments=[translation.in_cluster(of, str(word)) for word in of.service["command"]],
        ports=PORTS[of.name],
        probes=probes(of.name),
        volumes=mounted.volumes,
        mounts=mounted.mounts,
        annotations={"airflow-ha/files": mounted.digest} if mounted.data else {},
        container={"lifecycle": {}},  # its image may have no shell, and a client of UDP retries nothing
    )
    if of.name == COLLECTOR:
        # The queue of a second backend: it survives a restart of the container, not of the node.
        pod.volumes.append({"name": "data", "emptyDir": {"sizeLimit": "1Gi"}})
        pod.mounts.append({"name": "data", "mountPath": "/var/lib/otelcol"})
    return [
        *([manifests.config_map(manifests.files_name(of.name), of.cluster, mounted.data)] if mounted.data else []),
        # One at a time: two would each have a part of the counters.
        manifests.deployment(of, pod, RECREATE),
        manifests.service(of.name, of.cluster, PORTS[of.name]),
    ]


def probes(name: str) -> Manifest:
    """Return the probes of one of them."""
    if name in PROBES:
        port, path = PROBES[name]
        return {"livenessProbe": http_probe(port, path, periodSeconds=20, failureThreshold=3)}
    ((_, port), *_) = PORTS[name]
    return {"livenessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 20, "failureThreshold": 3}}
