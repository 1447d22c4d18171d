"""The drills that only the test cluster allows: a node without power, and a node without its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.errors import StackError
from ops.kubernetes import kubectl, pod_faults
from ops.kubernetes.cluster import local_cluster, networks, nodes, processes
from ops.kubernetes.cluster.networks import CONTROL_ADDRESS, Node
from ops.kubernetes.data_nodes import components_of
from ops.kubernetes.pod_drills import PodDrill
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ops.kubernetes.translation import Cluster

    Report = Callable[[str], None]

CHAIN: Final = "AIRFLOW-HA-DRILL"
HOOKS: Final = ("INPUT", "OUTPUT", "FORWARD")


def chosen_node(cluster: Cluster) -> Node:
    """Return the node that a drill ends.

    Raises:
        StackError: It is no node of the test cluster.
    """
    name = pod_faults.target_node(cluster)
    node = next((each for each in local_cluster.all_nodes() if each.name == name), None)
    if node is None:
        hint = "run ./ops/stack kubernetes cluster up, or choose drain"
        raise StackError(f"cannot end the node {name}: it is none of the test cluster", hint=hint)
    return node


def pods_of(cluster: Cluster, node: Node) -> list[str]:
    """Return the names of the installation's pods on a node."""
    return [str(pod["metadata"]["name"]) for pod in pod_faults.pods_by_node(cluster)[node.name]]


def power_off(cluster: Cluster, report: Report) -> list[str]:
    """Power off the node with the most pods."""
    node = chosen_node(cluster)
    pods = pods_of(cluster, node)
    nodes.power_off(node)
    report(f"powered off {node.name} with {len(pods)} pods")
    return pods


def power_on(cluster: Cluster, report: Report) -> None:
    """Power on the nodes that are off, and wait until all are ready."""
    for node in local_cluster.all_nodes():
        if not processes.is_running(node.name):
            nodes.power_on(node, local_cluster.pki())
    wait_for_nodes(cluster, report)


def wait_for_nodes(cluster: Cluster, report: Report) -> None:
    """Wait until every node is ready."""
    number = len(local_cluster.all_nodes())
    ready = f"{number} nodes are ready"
    wait(lambda: local_cluster.ready_nodes(cluster.settings) == number, local_cluster.READY_SECONDS, ready, report)


# ---- partition


def partition(cluster: Cluster, report: Report) -> list[str]:
    """Cut the node with the most pods off from the control plane, and from Postgres and Redis on other nodes.

    Its tasks go on, and reach the gateway. So this drill shows whether a task that is run again elsewhere ran twice at
    the same time.
    """
    node = chosen_node(cluster)
    pods = pods_of(cluster, node)
    for rule in cutting_rules(data_addresses(cluster, node)):
        iptables(node, *rule)
    report(f"cut {node.name} with {len(pods)} pods")
    return pods


def data_addresses(cluster: Cluster, node: Node) -> list[str]:
    """Return the addresses of Postgres, Redis and the Sentinels on other nodes."""
    data = components_of(cluster.profiles)
    pods = kubectl.labelled(cluster.settings, ["pods"], f"component in ({','.join(data)})") if data else []
    return [
        str(pod["status"]["podIP"])
        for pod in pods
        if pod["spec"].get("nodeName") != node.name and pod["status"].get("podIP")
    ]


def cutting_rules(addresses: Sequence[str]) -> Iterator[list[str]]:
    """Yield the arguments of each iptables command: a chain of its own, before all others. The DNS (UDP) stays."""
    yield ["--new-chain", CHAIN]
    for side in ("--source", "--destination"):
        yield ["--append", CHAIN, side, CONTROL_ADDRESS, "--protocol", "tcp", "--jump", "DROP"]
        yield from (["--append", CHAIN, side, address, "--jump", "DROP"] for address in addresses)
    yield from (["--insert", hook, "--jump", CHAIN] for hook in HOOKS)


def join(cluster: Cluster, report: Report) -> None:
    """Connect the nodes that are cut off, and wait until all are ready."""
    for node in local_cluster.all_nodes():
        if CHAIN in networks.run(*networks.inside(node.namespace, "iptables", "--wait", "--list-rules")):
            for rule in joining_rules():
                iptables(node, *rule)
            report(f"connected {node.name}")
    wait_for_nodes(cluster, report)


def joining_rules() -> Iterator[list[str]]:
    """Yield the arguments of the commands that undo `cutting_rules`."""
    yield from (["--delete", hook, "--jump", CHAIN] for hook in HOOKS)
    yield ["--flush", CHAIN]
    yield ["--delete-chain", CHAIN]


def iptables(node: Node, *arguments: str) -> None:
    """Run iptables in a node's network."""
    networks.run(*networks.inside(node.namespace, "iptables", "--wait", *arguments))


DRILLS: Final = (
    PodDrill("node-power-off", "a node loses its power", power_off, power_on, loses_tries=True),
    PodDrill(
        "node-partition",
        "a node is cut off from control plane, Postgres and Redis while its tasks run",
        partition,
        join,
        loses_tries=True,
    ),
)
