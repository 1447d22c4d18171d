"""Postgres and Redis for whoever has none: the images, files and names of compose/data.yaml and compose/data-ha.yaml.

With `data-ha` each pod has a Service of its own name, so that files and URLs are those of Docker. Patroni keeps its
leader lock in Kubernetes instead of etcd.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ops.kubernetes import manifests, translation
from ops.kubernetes.manifests import Pod, http_probe
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ops.kubernetes.translation import Cluster, Manifest, Service

PATRONI, REDIS, SENTINEL = "patroni", "redis", "sentinel"
SCOPE_LABEL: Final = "cluster-name"
"""Patroni finds its pods by this label, with its scope."""
COMPONENTS: Final = {"data": ("postgres", REDIS), "data-ha": (PATRONI, REDIS, SENTINEL)}
"""The StatefulSets of each data profile."""
POD_NAME: Final[Manifest] = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
TOKEN_SECONDS: Final = 3600
ACCOUNT: Final = "kubernetes.io/serviceaccount"


def components_of(profiles: Collection[str]) -> tuple[str, ...]:
    """Return the StatefulSets of the data profile that is on; none where Postgres and Redis are external."""
    return next((components for profile, components in COMPONENTS.items() if profile in profiles), ())


POSTGRES_VOLUMES: Final[list[Manifest]] = [
    {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
]
"""The sizes of `tmpfs` and `shm_size` on Docker."""
POSTGRES_MOUNTS: Final[list[Manifest]] = [
    {"name": "run", "mountPath": "/var/run/postgresql"},
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
]
POSTGRES_DATA: Final = "/var/lib/postgresql/data"
POSTGRES_SIZE, REDIS_SIZE = "KUBERNETES_POSTGRES_SIZE", "KUBERNETES_REDIS_SIZE"


def single_postgres(cluster: Cluster) -> list[Manifest]:
    """Return one Postgres, a single point of failure."""
    of = cluster.service("postgres")
    mounted = manifests.files(of, of.name)
    pod = Pod(
        of.name,
        arguments=[str(word) for word in of.service["command"]],
        ports=[("postgres", 5432)],
        probes=checked(translation.health_command(of), translation.period(of), translation.failures(of)),
        volumes=[*mounted.volumes, *POSTGRES_VOLUMES],
        mounts=[*mounted.mounts, *POSTGRES_MOUNTS],
        annotations={"airflow-ha/files": mounted.digest},
    )
    return [
        manifests.config_map(manifests.files_name(of.name), cluster, mounted.data),
        stateful_set(of, pod, 1, POSTGRES_DATA, POSTGRES_SIZE),
        manifests.service(of.name, cluster, pod.ports),
    ]


def single_redis(cluster: Cluster) -> list[Manifest]:
    """Return one Redis, a single point of failure."""
    of = cluster.service(REDIS)
    mounted = manifests.files(of, REDIS)
    pod = Pod(
        REDIS,
        command=[str(word) for word in of.service["entrypoint"]],
        arguments=[str(word) for word in of.service["command"]],
        ports=[(REDIS, 6379)],
        probes=checked(translation.health_command(of), translation.period(of), translation.failures(of)),
        volumes=mounted.volumes,
        mounts=mounted.mounts,
        annotations={"airflow-ha/files": mounted.digest},
    )
    return [
        manifests.config_map(manifests.files_name(REDIS), cluster, mounted.data),
        stateful_set(of, pod, 1, "/data", REDIS_SIZE),
        manifests.service(REDIS, cluster, pod.ports),
    ]


def replicated_postgres(cluster: Cluster) -> list[Manifest]:
    """Return the replicated Postgres, with the rights that Patroni needs in this namespace."""
    of = cluster.service(POSTGRES_NODES[0])
    mounted = manifests.files(of, PATRONI)
    alive = http_probe(
        8008, "/liveness", periodSeconds=translation.period(of), failureThreshold=translation.failures(of)
    )
    ready = http_probe(8008, "/readiness", periodSeconds=translation.period(of), failureThreshold=2)
    # Begins the names of Patroni's ConfigMaps, and RELEASE-config is the chart's.
    scope = f"{cluster.release}-{PATRONI}"
    pod = Pod(
        PATRONI,
        command=[str(word) for word in of.service["entrypoint"]],
        arguments=[str(word) for word in of.service["command"]],
        env=[
            POD_NAME,
            {"name": "PATRONI_NAME", "value": "$(POD_NAME)"},
            # Not PATRONI_KUBERNETES_NAMESPACE: the namespace of patroni.yaml, a folder of etcd, would win over it.
            {"name": "PATRONI_NAMESPACE", "value": cluster.settings["KUBERNETES_NAMESPACE"]},
            {"name": "PATRONI_SCOPE", "value": scope},
            {"name": "PATRONI_KUBERNETES_LABELS", "value": json.dumps(manifests.labels(cluster, PATRONI))},
        ],
        ports=[("postgres", 5432), ("patroni", 8008)],
        probes={"startupProbe": manifests.started(alive), "livenessProbe": alive, "readinessProbe": ready},
        volumes=[*mounted.volumes, *POSTGRES_VOLUMES, secrets_with_token(of)],
        mounts=[*mounted.mounts, *POSTGRES_MOUNTS],
        annotations={"airflow-ha/files": mounted.digest},
        labels={SCOPE_LABEL: scope},
        more={"serviceAccountName": PATRONI},
    )
    # The variables above replace PATRONI_NAME of the first node.
    of = translation.Service(of.name, {**of.service, "environment": without_name(of)}, cluster)
    return [
        *rights(cluster),
        manifests.config_map(manifests.files_name(PATRONI), cluster, mounted.data),
        stateful_set(of, pod, len(POSTGRES_NODES), POSTGRES_DATA, POSTGRES_SIZE),
        *named_services(POSTGRES_NODES, cluster, pod),
    ]


def without_name(of: Service) -> dict[str, str]:
    """Return the environment of a Patroni node without its name."""
    return {key: value for key, value in of.service["environment"].items() if key != "PATRONI_NAME"}


def secrets_with_token(of: Service) -> Manifest:
    """Return the secrets of Patroni with its token for Kubernetes' API, in one volume.

    Kubernetes would mount the token below /run/secrets, where the files of the image's scripts are.
    """
    token = {"serviceAccountToken": {"path": f"{ACCOUNT}/token", "expirationSeconds": TOKEN_SECONDS}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": f"{ACCOUNT}/ca.crt"}]}}
    namespace = {
        "downwardAPI": {"items": [{"path": f"{ACCOUNT}/namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}
    }
    return translation.secrets_volume(of, [token, authority, namespace], without=["etcd_password"])


def rights(cluster: Cluster) -> list[Manifest]:
    """Return the account of Patroni: its lock is in ConfigMaps, and the role of each node a label of its pod.

    https://patroni.readthedocs.io/en/latest/kubernetes.html; `delete` is for `patronictl remove` only.
    """
    rules = [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["create", "get", "list", "patch", "update", "watch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": PATRONI}
    account = {
        "kind": "ServiceAccount",
        "name": PATRONI,
        "namespace": cluster.settings["KUBERNETES_NAMESPACE"],
    }
    version = "rbac.authorization.k8s.io/v1"
    return [
        manifests.manifest("v1", "ServiceAccount", PATRONI, cluster, automountServiceAccountToken=False),
        manifests.manifest(version, "Role", PATRONI, cluster, rules=rules),
        manifests.manifest(version, "RoleBinding", PATRONI, cluster, roleRef=role, subjects=[account]),
    ]


def replicated_redis(cluster: Cluster) -> list[Manifest]:
    """Return the Redis nodes and their Sentinels."""
    parts: list[Manifest] = []
    for component, nodes, port in ((REDIS, REDIS_NODES, 6379), (SENTINEL, SENTINELS, 26379)):
        of = cluster.service(nodes[0])
        mounted = manifests.files(of, component)
        check = translation.health_command(of)
        pod = Pod(
            component,
            command=[str(word) for word in of.service["entrypoint"]],
            arguments=["$(POD_NAME)"],
            env=[POD_NAME],
            ports=[(component, port)],
            probes=checked(check, translation.period(of), translation.failures(of)),
            volumes=mounted.volumes,
            mounts=mounted.mounts,
            annotations={"airflow-ha/files": mounted.digest},
        )
        parts += [
            manifests.config_map(manifests.files_name(component), cluster, mounted.data),
            stateful_set(of, pod, len(nodes), "/data", REDIS_SIZE),
            *named_services(nodes, cluster, pod),
        ]
    # Flower accepts one Sentinel's name only.
    return [*parts, manifests.service(SENTINEL, cluster, [(SENTINEL, 26379)])]


UNLESS_DEPENDENCY_DOWN: Final = '"$@"; code=$?; [ "$code" -eq 75 ] || exit "$code"'
"""Runs a check of Docker's; 75, a dependency is down, restarts nothing."""


def checked(check: Sequence[str], period: int, failures: int) -> Manifest:
    """Return the probes by a script that Docker's health check runs too."""
    limits = {"periodSeconds": period, "timeoutSeconds": translation.PROBE_TIMEOUT}
    alive = {"exec": {"command": ["sh", "-c", UNLESS_DEPENDENCY_DOWN, "check", *check]}, **limits}
    return {
        "startupProbe": manifests.started(alive),
        "livenessProbe": alive | {"failureThreshold": failures},
        "readinessProbe": {"exec": {"command": list(check)}, **limits, "failureThreshold": 2},
    }


def stateful_set(of: Service, pod: Pod, replicas: int, folder: str, size: str) -> Manifest:
    """Return a StatefulSet. The pods of several replicas have the names of compose's services, from -1.

    Args:
        of: The service of the first node.
        pod: Its pods.
        replicas: How many.
        folder: The mount point of a node's data.
        size: The setting with the size of its volume.
    """
    cluster, component = of.cluster, pod.component
    own = manifests.labels(cluster, component)
    storage_class = cluster.settings["KUBERNETES_STORAGE_CLASS"]
    pod.mounts.append({"name": "data", "mountPath": folder})
    if replicas > 1:
        # As far apart as the nodes allow: the loss of one must not take a majority with it.
        pod.more = {"topologySpreadConstraints": translation.spread(own, hard=True), **pod.more}
    data: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": cluster.settings[size]}},
        **({"storageClassName": storage_class} if storage_class else {}),
    }
    spec = {
        "replicas": replicas,
        **({"ordinals": {"start": 1}} if replicas > 1 else {}),
        "serviceName": component,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": own},
        "template": manifests.pod_template(of, pod),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": data}],
    }
    metadata = {"labels": {"component": component}}
    return manifests.manifest("apps/v1", "StatefulSet", component, cluster, metadata=metadata, spec=spec)


def named_services(nodes: Sequence[str], cluster: Cluster, pod: Pod) -> list[Manifest]:
    """Return a Service for each node, which resolves its name to its pod, ready or not, and the budget of all."""
    services = [
        manifests.manifest(
            "v1",
            "Service",
            node,
            cluster,
            spec={
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"statefulset.kubernetes.io/pod-name": node},
                "ports": [{"name": name, "port": port} for name, port in pod.ports],
            },
        )
        for node in nodes
    ]
    return [*services, manifests.disruption_budget(pod.component, cluster)]
