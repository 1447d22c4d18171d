"""The test cluster's networks: a namespace for the control plane and one for each node, on one bridge.

Static routes connect the pods, and this machine reaches the API server by a veth of its own. Docker's rules stay as
they are.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROL: Final = "kube-control"
"""The network namespace of the control plane."""
BRIDGE: Final = "kube-bridge"
HOST_LINK: Final = "kube-host"
HOST_ADDRESS: Final = "10.87.0.254"
CONTROL_ADDRESS: Final = "10.87.0.1"
API_SERVER: Final = f"https://{CONTROL_ADDRESS}:6443"
PODS: Final = "10.88.0.0/16"
SERVICES: Final = "10.89.0.0/16"
FIRST_SERVICE: Final = "10.89.0.1"
"""The address of the API server for pods."""


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        number: From 1.
    """

    number: int

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return f"node-{self.number}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"kube-{self.name}"

    @property
    def address(self) -> str:
        """Its address."""
        return f"10.87.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return f"10.88.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The bridge's end of its cable."""
        return f"kube-n{self.number}"


def run(*command: str) -> str:
    """Return the output of a command.

    Raises:
        StackError: It failed.
    """
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = f"{result.stderr.strip() or result.stdout.strip()}"
        raise StackError(f"cannot run {' '.join(command[:4])}: {reason}", hint="run this as root", code=FAILURE)
    return result.stdout


def inside(namespace: str, *command: str) -> list[str]:
    """Return a command line in a network namespace. `ip netns exec` would hide the hierarchies of control groups."""
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


def create(nodes: Sequence[Node]) -> None:
    """Create the networks."""
    run("ip", "netns", "add", CONTROL)
    in_control("ip", "link", "set", "lo", "up")
    in_control("ip", "link", "add", BRIDGE, "type", "bridge")
    in_control("ip", "addr", "add", f"{CONTROL_ADDRESS}/24", "dev", BRIDGE)
    in_control("ip", "link", "set", BRIDGE, "up")
    in_control("sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "host", "netns", CONTROL)
    in_control("ip", "link", "set", "host", "master", BRIDGE, "up")
    run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", HOST_LINK)
    run("ip", "link", "set", HOST_LINK, "up")
    for node in nodes:
        connect(node, [other for other in nodes if other != node])


def connect(node: Node, others: Sequence[Node]) -> None:
    """Create a node's network, with routes to the pods of the others."""

    def in_node(*command: str) -> None:
        run(*inside(node.namespace, *command))

    run("ip", "netns", "add", node.namespace)
    in_node("ip", "link", "set", "lo", "up")
    run(
        "ip",
        "link",
        "add",
        node.link,
        "netns",
        CONTROL,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        node.namespace,
    )
    in_control("ip", "link", "set", node.link, "master", BRIDGE, "up")
    in_node("ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
    in_node("ip", "link", "set", "eth0", "up")
    in_node("ip", "route", "add", "default", "via", CONTROL_ADDRESS)
    in_node("sysctl", "-qw", "net.ipv4.ip_forward=1")
    in_control("ip", "route", "add", node.pods, "via", node.address)
    for other in others:
        in_node("ip", "route", "add", other.pods, "via", other.address)


def in_control(*command: str) -> None:
    """Run a command in the control plane's namespace."""
    run(*inside(CONTROL, *command))


def set_link(node: Node, state: str) -> None:
    """Pull or plug a node's cable: `down` or `up`."""
    in_control("ip", "link", "set", node.link, state)


def remove() -> None:
    """Remove every network of the test cluster. A veth goes with its peer, and links go with their namespace."""
    subprocess.run(["ip", "link", "del", HOST_LINK], capture_output=True, check=False)
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name == CONTROL or name.startswith("kube-node-"):
            run("ip", "netns", "del", name)
