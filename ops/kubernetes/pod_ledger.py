"""The drills' ledger in a pod, on a node that no drill ends."""

from __future__ import annotations

import contextlib
import csv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops.drills.ledger import SERVE, TABLE, Ledger
from ops.errors import StackError
from ops.kubernetes import kubectl, manifests, pod_faults, values
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.kubernetes.translation import Cluster, Manifest

LEDGER: Final = pod_faults.LEDGER
START_SECONDS: Final = 180.0


@dataclass(frozen=True)
class PodLedger(Ledger):
    """A ledger in a pod.

    Attributes:
        settings: The settings of the cluster.
    """

    settings: Mapping[str, str] = field(default_factory=dict)

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of an SQL statement."""
        command = ["psql", "--host=/tmp", "--username=postgres", "--csv", "--tuples-only", f"--command={statement}"]
        return list(csv.reader(kubectl.output(self.settings, "exec", self.container, "--", *command).splitlines()))


@contextlib.contextmanager
def started_ledger(cluster: Cluster) -> Iterator[PodLedger]:
    """Run a ledger for the duration of the block."""
    settings = cluster.settings
    objects = ledger_objects(cluster, pod_faults.ledger_node(cluster))
    kubectl.output(settings, "delete", "pod", LEDGER, "--ignore-not-found", "--wait=true")
    kubectl.apply(settings, *objects)
    book = PodLedger(LEDGER, settings)
    try:
        kubectl.output(settings, "wait", "--for=condition=Ready", f"pod/{LEDGER}", "--timeout=120s")

        def created() -> bool:
            try:
                book.query(TABLE)
            except StackError as error:
                return "already exists" in error.what
            return True

        wait(created, START_SECONDS, "the drills' ledger answers", lambda _: None)
        yield book
    finally:
        for kind in ("pod", "service", "networkpolicy"):
            kubectl.output(settings, "delete", kind, LEDGER, "--ignore-not-found", "--wait=false")


def ledger_objects(cluster: Cluster, node: str) -> list[Manifest]:
    """Return the pod of the ledger on a node, its Service, and the policy that lets tasks reach it."""
    labels = {"component": LEDGER}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LEDGER, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {**values.POD_SECURITY, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
            "nodeName": node,
            "containers": [
                {
                    "name": LEDGER,
                    "image": cluster.settings["POSTGRES_IMAGE"],
                    "imagePullPolicy": cluster.settings["KUBERNETES_PULL_POLICY"],
                    "command": ["sh", "-c", SERVE],
                    "securityContext": values.CONTAINER_SECURITY,
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    service = manifests.manifest("v1", "Service", LEDGER, cluster, spec={"selector": labels, "ports": [{"port": 5432}]})
    spec = {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 5432}]}],
    }
    policy = manifests.manifest("networking.k8s.io/v1", "NetworkPolicy", LEDGER, cluster, spec=spec)
    return [pod, service, policy]
