"""Building blocks of the manifests beside the chart: objects with our labels, and pods of compose services."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ops.kubernetes import translation
from ops.kubernetes.translation import PREFIX, as_list
from ops.kubernetes.values import CONTAINER_SECURITY, POD_SECURITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.kubernetes.translation import Cluster, Manifest, Service

PART_OF: Final = "app.kubernetes.io/part-of"
DRAIN_SECONDS: Final = 3
"""Requests still arrive after a pod has begun to stop, until every node has removed it from its Service."""


def labels(cluster: Cluster, component: str) -> dict[str, str]:
    """Return the labels of a component, in the chart's form."""
    return {"tier": "airflow", "component": component, "release": cluster.release}


def manifest(version: str, kind: str, name: str, cluster: Cluster, **content: Any) -> Manifest:
    """Return an object with our labels; `content` may add labels by `metadata`."""
    metadata = {"name": name, "labels": {PART_OF: PREFIX, "release": cluster.release}}
    extra = content.pop("metadata", {})
    metadata["labels"] |= extra.pop("labels", {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata | extra, **content}


def config_map(name: str, cluster: Cluster, data: Mapping[str, str], **metadata: Any) -> Manifest:
    """Return a ConfigMap."""
    return manifest("v1", "ConfigMap", name, cluster, metadata=metadata, data=dict(data))


def service(component: str, cluster: Cluster, ports: Iterable[tuple[str, int]], **spec: Any) -> Manifest:
    """Return a Service of a component.

    Args:
        component: Its name, and the component that it selects.
        cluster: The cluster.
        ports: Name and number of each port; a name that ends with `-udp` is one of UDP.
        spec: Further fields.
    """
    listed = [
        {"name": name, "port": port, "protocol": "UDP" if name.endswith("-udp") else "TCP"} for name, port in ports
    ]
    content = {"selector": labels(cluster, component), "ports": listed} | spec
    return manifest("v1", "Service", component, cluster, metadata={"labels": {"component": component}}, spec=content)


def disruption_budget(component: str, cluster: Cluster) -> Manifest:
    """Return a budget that lets one pod of a component be evicted at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels(cluster, component)}}
    return manifest("policy/v1", "PodDisruptionBudget", component, cluster, spec=spec)


# ---- pods


@dataclass
class Files:
    """The files of compose/ that a service mounts, as one ConfigMap.

    Attributes:
        data: The texts by key.
        mounts: The mounts of the container.
        volumes: The volumes of the pod.
    """

    data: dict[str, str] = field(default_factory=dict)
    mounts: list[Manifest] = field(default_factory=list)
    volumes: list[Manifest] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A digest of the texts: a changed file changes the pods."""
        return hashlib.sha256(repr(sorted(self.data.items())).encode()).hexdigest()[:16]


def files_name(component: str) -> str:
    """Return the name of the ConfigMap with a component's files."""
    return f"{PREFIX}-files-{component}"


def files(of: Service, component: str, skipped: Iterable[str] = ()) -> Files:
    """Return the files of compose/ that a service mounts; the guard of Docker's health checks is not needed.

    Args:
        of: The service.
        component: The component that the ConfigMap is named after.
        skipped: Targets of files that only Docker needs.
    """
    result = Files()
    left_out = {translation.GUARD, *skipped}
    for mounted in of.service.get("volumes") or []:
        source, _, rest = str(mounted).partition(":")
        target = rest.removesuffix(":ro")
        if not source.startswith("./") or target in left_out:
            continue
        path = of.cluster.compose / source
        name = source.removeprefix("./").replace("/", ".")
        volume = f"files-{name.replace('.', '-').replace('_', '-').lower()}"
        is_folder = path.is_dir()
        sources = {f"{name}.{each.name}": each for each in sorted(path.iterdir())} if is_folder else {name: path}
        result.data |= {key: each.read_text(encoding="utf-8") for key, each in sources.items()}
        items = [{"key": key, "path": each.name} for key, each in sources.items()]
        result.volumes.append({"name": volume, "configMap": {"name": files_name(component), "items": items}})
        mount = {"name": volume, "mountPath": target, "readOnly": True}
        result.mounts.append(mount if is_folder else mount | {"subPath": path.name})
    return result


@dataclass
class Pod:
    """What a pod has beside the translation of its compose service.

    Attributes:
        component: The component in its labels.
        command: The command, past the image's entrypoint; None for the image's own.
        arguments: The arguments.
        env: Further variables.
        ports: Name and number of each port.
        probes: The container's probes.
        volumes: Further volumes.
        mounts: Their mounts.
        init: Init containers.
        user: The uid and gid of its processes.
        annotations: Of the pod.
        labels: Further labels.
        more: Further fields of the pod's specification.
        container: Further fields of the container.
    """

    component: str
    arguments: list[str]
    command: list[str] | None = None
    env: list[Manifest] = field(default_factory=list)
    ports: list[tuple[str, int]] = field(default_factory=list)
    probes: Manifest = field(default_factory=dict)
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    init: list[Manifest] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    more: Manifest = field(default_factory=dict)
    container: Manifest = field(default_factory=dict)


def pod_template(of: Service, pod: Pod) -> Manifest:
    """Return the template of a pod of a compose service."""
    settings = of.settings
    scratch = translation.scratch_volume(of)
    secrets = bool(of.service.get("secrets")) and not any(volume["name"] == "secrets" for volume in pod.volumes)
    volumes = [scratch, *([translation.secrets_volume(of)] if secrets else []), *pod.volumes]
    has_secrets = any(volume["name"] == "secrets" for volume in volumes)
    mounts = [dict(translation.SCRATCH_MOUNT), *([translation.secrets_mount(of)] if has_secrets else []), *pod.mounts]
    container = {
        "name": pod.component,
        "image": of.service["image"],
        "imagePullPolicy": settings["KUBERNETES_PULL_POLICY"],
        **({"command": pod.command} if pod.command else {}),
        "args": pod.arguments,
        "env": [*as_list(translation.environment(of) if "environment" in of.service else {}), *pod.env],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "UDP" if name.endswith("-udp") else "TCP"}
            for name, port in pod.ports
        ],
        "resources": translation.resources(of),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
        **pod.probes,
        **pod.container,
    }
    if pod.ports and "lifecycle" not in container:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}
    pull_secret = settings["KUBERNETES_PULL_SECRET"]
    own = labels(of.cluster, pod.component)
    return {
        "metadata": {
            "labels": {**own, PART_OF: PREFIX, **translation.network_labels(of), **pod.labels},
            "annotations": pod.annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": security(of),
            "terminationGracePeriodSeconds": of.stop_seconds + (DRAIN_SECONDS if pod.ports else 0),
            "tolerations": translation.tolerations(settings),
            **({"imagePullSecrets": [{"name": pull_secret}]} if pull_secret else {}),
            **({"initContainers": pod.init} if pod.init else {}),
            "containers": [container],
            "volumes": volumes,
            **pod.more,
        },
    }


def security(of: Service) -> Manifest:
    """Return the user of a pod: that of the compose service, whose group reads its files."""
    user, _, group = str(of.service["user"]).partition(":")
    return {**POD_SECURITY, "runAsUser": int(user), "runAsGroup": int(group), "fsGroup": int(group)}


def deployment(of: Service, pod: Pod, strategy: Manifest | None = None) -> Manifest:
    """Return a Deployment of a compose service.

    Args:
        of: The service.
        pod: Its pods.
        strategy: None: a new pod is ready before an old one stops.
    """
    own = labels(of.cluster, pod.component)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    if of.replicas > 1:
        pod.more = {
            "topologySpreadConstraints": translation.spread(own),
            "affinity": translation.apart(own),
            **pod.more,
        }
    spec = {
        "replicas": of.replicas,
        "strategy": strategy or rolling,
        "selector": {"matchLabels": own},
        "template": pod_template(of, pod),
    }
    metadata = {"labels": {"component": pod.component}}
    return manifest("apps/v1", "Deployment", pod.component, of.cluster, metadata=metadata, spec=spec)


def http_probe(port: int, path: str, **limits: int) -> Manifest:
    """Return a probe by HTTP."""
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": translation.PROBE_TIMEOUT, **limits}


def started(probe: Manifest) -> Manifest:
    """Return a startup probe with the check of another probe: the others begin once it succeeds."""
    check = {key: value for key, value in probe.items() if key in ("httpGet", "exec", "timeoutSeconds")}
    return check | {"periodSeconds": 5, "failureThreshold": translation.STARTUP_SECONDS // 5}
