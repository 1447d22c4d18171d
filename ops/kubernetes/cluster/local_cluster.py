"""`kubernetes cluster up` and `down`: the test cluster as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops import settings_file
from ops.errors import StackError
from ops.kubernetes import kubectl, remote_parts
from ops.kubernetes.cluster import certificates, control_plane, image_store, networks, nodes, processes, programs
from ops.kubernetes.cluster.networks import Node
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

READY_SECONDS: Final = 120.0
IMAGES: Final = (
    *("AIRFLOW_IMAGE", "GATEWAY_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "PATRONI_IMAGE"),
    *("STATSD_EXPORTER_IMAGE", "OTEL_COLLECTOR_IMAGE", "POSTGRES_EXPORTER_IMAGE", "REDIS_EXPORTER_IMAGE"),
)
"""The images that the test cluster has, from Docker's stack."""
LOCAL, SHARED = "local", "shared"
"""Storage classes: folders of one node, and folders that all nodes of one machine share."""
VOLUMES_PER_NODE: Final = 6
SHARED_VOLUMES: Final = 3
HOST_FOLDERS: Final = "host-folders"
CAPACITY: Final = "100Gi"


def pki() -> Path:
    """Return the folder of the certificates."""
    return programs.folder() / "pki"


def kubeconfig() -> Path:
    """Return the kubeconfig of the test cluster's administrator."""
    return certificates.config(pki(), certificates.ADMIN)


def all_nodes() -> list[Node]:
    """Return the nodes that were started."""
    folder = programs.folder() / "nodes"
    return (
        [Node(int(path.name.rpartition("-")[2])) for path in sorted(folder.glob("node-*"))] if folder.exists() else []
    )


def build(report: Callable[[str], None]) -> None:
    """Build the programs of the test cluster."""
    programs.build(report)


def up(project: Project, number: int, report: Callable[[str], None]) -> None:
    """Start the test cluster with the images of Docker's stack.

    Args:
        project: The project with the state for Kubernetes, whose .env gets settings that suit the test cluster.
        number: How many nodes.
        report: Receives progress lines.

    Raises:
        StackError: This machine cannot run it, or it is there.
    """
    check_machine()
    images = stack_images(project)
    programs.build(report)
    image_store.prepare(list(images.values()), report)
    down(report)
    created = [Node(each) for each in range(1, number + 1)]
    os.environ["KUBECONFIG"] = str(kubeconfig())
    networks.create(created)
    certificates.create(pki(), created)
    state = programs.folder() / "control"
    state.mkdir(parents=True)
    create_host_folders(state)
    control_plane.start(state, pki(), report)
    report("the control plane is ready")
    for node in created:
        nodes.start(node, pki())
    settings = {**suitable(images), "KUBERNETES_CONTEXT": "", "KUBERNETES_NAMESPACE": "default"}
    wait(lambda: ready_nodes(settings) == number, READY_SECONDS, f"{number} nodes are ready", report, poll_seconds=0.5)
    kubectl.apply(settings, *storage(created))
    if not project.env_file.exists():
        project.state.mkdir(parents=True, exist_ok=True)
        settings_file.write(project, suitable(images))
    report(f"{number} nodes are ready")


def create_host_folders(state: Path) -> None:
    """Create the mount points of the nodes' own folders that this machine lacks, and list them."""
    missing = [folder for folder in map(Path, nodes.OWN_FOLDERS) if not folder.exists()]
    (state / HOST_FOLDERS).write_text("".join(f"{folder}\n" for folder in missing), encoding="utf-8")
    for folder in missing:
        folder.mkdir(parents=True)


def remove_host_folders(state: Path) -> None:
    """Remove the mount points that were created."""
    listed = state / HOST_FOLDERS
    for line in listed.read_text(encoding="utf-8").split() if listed.exists() else []:
        subprocess.run(["rmdir", line], capture_output=True, check=False)


def check_machine() -> None:
    """Refuse a machine that cannot run nodes in namespaces."""
    if os.geteuid() != 0:
        raise StackError("cannot start the test cluster: this user is not root", hint="run it as root, or install kind")
    if (nodes.CGROUPS / "cgroup.controllers").exists():
        raise StackError(
            "cannot start the test cluster: this machine has control groups of version 2 only", hint="install kind"
        )


def stack_images(project: Project) -> dict[str, str]:
    """Return the images of Docker's stack that are on this machine, by key."""
    path = project.compose_directory / ".env"
    settings = settings_file.parse(path, "compose/.env")
    found = {key: settings[key] for key in IMAGES if settings.get(key)}
    if "AIRFLOW_IMAGE" not in found:
        raise StackError("cannot find the project's image", where="compose/.env", hint="run ./ops/stack up once")
    return found


def suitable(images: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that suit the test cluster: replicated data where the image of Patroni exists."""
    data = "data-ha" if "PATRONI_IMAGE" in images else "data"
    return {
        **images,
        "COMPOSE_PROFILES": f"{data},flower,observability",
        "KUBERNETES_PULL_POLICY": "Never",
        "KUBERNETES_STORAGE_CLASS": LOCAL,
        "KUBERNETES_SHARED_STORAGE_CLASS": SHARED,
        "KUBERNETES_DAGS": remote_parts.VOLUME,
        "KUBERNETES_LOGS": remote_parts.VOLUME,
        "KUBERNETES_NODE_TOLERATION_SECONDS": "10",
        "WORKER_MEMORY": "2048m",
        "WORKER_CONCURRENCY": "4",
    }


def ready_nodes(settings: Mapping[str, str]) -> int:
    """Return how many nodes are ready."""
    command = kubectl.command(settings, "get", "nodes", "--output=json")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return 0
    conditions = [node["status"]["conditions"] for node in json.loads(result.stdout)["items"]]
    return sum(any(each["type"] == "Ready" and each["status"] == "True" for each in state) for state in conditions)


def storage(created: list[Node]) -> list[dict[str, Any]]:
    """Return the storage classes and volumes: folders of this machine."""
    classes = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        for name in (LOCAL, SHARED)
    ]
    return [
        *classes,
        *(volume(f"shared-{number}", SHARED, "ReadWriteMany") for number in range(SHARED_VOLUMES)),
        *(
            volume(f"{node.name}-{number}", LOCAL, "ReadWriteOnce", node)
            for node in created
            for number in range(VOLUMES_PER_NODE)
        ),
    ]


def volume(name: str, storage_class: str, mode: str, node: Node | None = None) -> dict[str, Any]:
    """Return a volume in a folder of its own.

    Args:
        name: Its name.
        storage_class: Its class.
        mode: How many nodes may write.
        node: The only node that has it; None for all.
    """
    folder = programs.folder() / "volumes" / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # fsGroup does not change the owner of a hostPath volume
    only = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name if node else ""]}
    affinity = {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [only]}]}}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": CAPACITY},
            "accessModes": [mode],
            "storageClassName": storage_class,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            **affinity,
        },
    }


def down(report: Callable[[str], None]) -> None:
    """Remove the test cluster: processes, networks, mounts, control groups and data. Programs and images are kept."""
    for node in all_nodes():
        nodes.remove(node)
    control_plane.stop()
    networks.remove()
    remove_host_folders(programs.folder() / "control")
    for name in ("control", "pki", "nodes", "volumes", "log"):
        shutil.rmtree(programs.folder() / name, ignore_errors=True)
    shutil.rmtree(processes.RUN, ignore_errors=True)
    report("the test cluster is removed")
