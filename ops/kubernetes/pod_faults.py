"""The faults of drills that any cluster allows: a killed pod, a drained node, an upgrade."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from ops.child_process import ChildFailedError, run_with_progress
from ops.errors import FAILURE, StackError
from ops.kubernetes import chart, installation, kubectl
from ops.kubernetes.data_nodes import components_of
from ops.kubernetes.translation import EXECUTION_API
from ops.services import GATEWAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ops.kubernetes.translation import Cluster

    Report = Callable[[str], None]
    # Returns the names of the pods that it ended.
    Fault = Callable[[Cluster, Report], list[str]]

LEDGER: Final = "drill-ledger"
DRAIN_SECONDS: Final = 900
ANNOTATION: Final = "airflow-ha/drill"


def kill(component: str) -> Fault:
    """Return the fault that kills one pod of a component at once."""

    def inject(cluster: Cluster, report: Report) -> list[str]:
        pods = kubectl.labelled(cluster.settings, ["pods"], f"component={component}")
        ready = [each for each in pods if installation.is_ready(each)]
        if not ready:
            raise StackError(
                f"cannot kill a pod of {component}: none is ready", hint="run ./ops/stack kubernetes status"
            )
        name = str(ready[0]["metadata"]["name"])
        kubectl.output(cluster.settings, "delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
        report(f"killed {name}")
        return [name]

    return inject


def drain(cluster: Cluster, report: Report) -> list[str]:
    """Drain the node with the most pods: they are evicted as their budgets allow, and workers finish their tasks."""
    node = target_node(cluster)
    pods = pods_by_node(cluster)[node]
    settings = cluster.settings
    run_long(
        settings,
        report,
        *("drain", node, f"--pod-selector=release={cluster.release}", "--ignore-daemonsets", "--delete-emptydir-data"),
        f"--timeout={DRAIN_SECONDS}s",
    )
    report(f"drained {node} of {len(pods)} pods")
    return [str(pod["metadata"]["name"]) for pod in pods]


def uncordon(cluster: Cluster, report: Report) -> None:
    """Let pods run on every node again."""
    for node in kubectl.read(cluster.settings, "nodes")["items"]:
        if node["spec"].get("unschedulable"):
            kubectl.output(cluster.settings, "uncordon", node["metadata"]["name"])
            report(f"pods may run on {node['metadata']['name']} again")


def upgrade(cluster: Cluster, report: Report) -> list[str]:
    """Replace every pod of Airflow in the order of an upgrade, with the settings that the release has."""
    settings = cluster.settings
    data = components_of(cluster.profiles)
    old = [
        str(pod["metadata"]["name"])
        for pod in kubectl.labelled(settings, ["pods"], f"release={cluster.release}")
        if pod["metadata"]["labels"]["component"] not in data and installation.is_ready(pod)
    ]
    for name in installation.deployments(settings):
        if not name.startswith(f"{cluster.release}-"):
            kubectl.output(settings, "rollout", "restart", f"deployment/{name}")
    for name in (GATEWAY, EXECUTION_API):
        kubectl.wait_for_rollout(settings, f"deployment/{name}", installation.ROLLOUT_SECONDS, report)
    kubectl.run_helm(
        settings,
        report,
        *("upgrade", cluster.release, str(chart.archive()), "--reuse-values"),
        f"--set-string=airflowPodAnnotations.{ANNOTATION}={time.time():.0f}",
        f"--timeout={installation.HELM_TIMEOUT}",
    )
    installation.wait_for_components(cluster, report)
    return old


def run_long(settings: Mapping[str, str], report: Report, *arguments: str) -> None:
    """Run a long kubectl command.

    Raises:
        StackError: It failed; the error quotes its last lines.
    """
    try:
        run_with_progress(kubectl.command(settings, *arguments), lambda line: line, report)
    except ChildFailedError as error:
        raise StackError(
            f"cannot run kubectl {arguments[0]}:\n" + "\n".join(error.tail[-8:]),
            hint="run ./ops/stack kubernetes status",
            code=FAILURE,
        ) from error


# ---- nodes


def pods_by_node(cluster: Cluster) -> dict[str, list[Any]]:
    """Return the pods of the installation by the node that they run on."""
    pods: dict[str, list[Any]] = defaultdict(list)
    for pod in kubectl.labelled(cluster.settings, ["pods"], f"release={cluster.release}"):
        if pod["spec"].get("nodeName"):
            pods[pod["spec"]["nodeName"]].append(pod)
    return pods


def ledger_node(cluster: Cluster) -> str:
    """Return the node for the drills' ledger, which no drill ends.

    With a single Postgres, or without a worker, or with the fewest pods.

    Raises:
        StackError: The installation has no pod.
    """
    pods = pods_by_node(cluster)
    if not pods:
        raise StackError("cannot run a drill: there is no installation", hint="run ./ops/stack kubernetes install")
    return min(pods, key=lambda node: (not must_stay(pods[node], cluster), has_worker(pods[node]), len(pods[node])))


def target_node(cluster: Cluster) -> str:
    """Return the node with a worker and the most pods whose loss the data tier survives, without the ledger.

    Raises:
        StackError: There is none.
    """
    pods = pods_by_node(cluster)
    ledger = {
        each["spec"].get("nodeName") for each in kubectl.labelled(cluster.settings, ["pods"], f"component={LEDGER}")
    }
    candidates = [node for node in pods if node not in ledger and not must_stay(pods[node], cluster)]
    if not candidates:
        raise StackError(
            "cannot choose a node: each has a single Postgres or Redis, or two nodes of the data tier",
            hint="use the profile data-ha with three nodes",
        )
    return max(candidates, key=lambda node: (has_worker(pods[node]), len(pods[node])))


def has_worker(pods: Sequence[Any]) -> bool:
    """Return whether tasks run on a node with these pods."""
    return any(pod["metadata"]["labels"]["component"] == "worker" for pod in pods)


def must_stay(pods: Sequence[Any], cluster: Cluster) -> bool:
    """Return whether the data tier does not survive the loss of a node with these pods."""
    allowed = 1 if "data-ha" in cluster.profiles else 0
    counted = Counter(pod["metadata"]["labels"]["component"] for pod in pods)
    return any(counted[component] > allowed for component in components_of(cluster.profiles))
