"""Network policies: who reaches which port, from the networks of the compose files.

Everything is denied but this: two pods reach each other on the ports that a server offers to a network that both are
on, as on Docker. A pod's labels name its networks. `execution` and `notifications` have a route outside, and every pod
asks the DNS. What Docker has no network for, such as DAGs from Git, is a network of its own here.

The container network has to enforce policies; one that does not ignores these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ops import worker_bounds
from ops.kubernetes import manifests, remote_parts, telemetry_parts
from ops.kubernetes.airflow_parts import GATEWAY_METRICS_PORT, TASKS_PORT
from ops.kubernetes.data_nodes import components_of
from ops.kubernetes.monitoring_parts import ALERTMANAGER
from ops.kubernetes.translation import API_PORT, API_SERVER, EXECUTION_API, NETWORK_LABEL
from ops.services import DATA_PROFILES, GATEWAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.kubernetes.translation import Cluster, Manifest

OFFERED: Final[Mapping[str, Mapping[str, tuple[int | str, ...]]]] = {
    GATEWAY: {"execution": (API_PORT, TASKS_PORT), "monitoring": (GATEWAY_METRICS_PORT,)},
    EXECUTION_API: {"frontend": (API_PORT,)},
    API_SERVER: {"frontend": (API_PORT,)},
    "statsd-exporter": {"telemetry": (9125, "9125/UDP"), "monitoring": (9102,)},
    "otel-collector": {"telemetry": (4317, 4318), "monitoring": ("8125/UDP", 8888, 8889, 8890)},
    "postgres-exporter": {"monitoring": (9187,)},
    "redis-exporter": {"monitoring": (9121,)},
    "postgres": {"database": (5432,)},
    "patroni": {"database": (5432,)},
    "redis": {"broker": (6379,)},
    "sentinel": {"broker": (26379,)},
    ALERTMANAGER: {"monitoring": (9093,)},
}
"""The ports of each component, by the network whose pods reach them."""
PEERS: Final[Mapping[str, tuple[tuple[str, int | str], ...]]] = {
    "patroni": (("patroni", 5432), ("patroni", 8008)),
    "redis": (("redis", 6379), ("sentinel", 26379)),
    "sentinel": (("sentinel", 26379), ("redis", 6379)),
    ALERTMANAGER: ((ALERTMANAGER, 9094), (ALERTMANAGER, "9094/UDP")),
}
"""The components and ports that a component reaches besides: one of several that run here as one."""
PUBLISHED: Final = (GATEWAY,)
"""The components that an Ingress publishes: anybody reaches them, and they ask for a log-in."""
OUTSIDE: Final = ("execution", "notifications")
"""The networks with a route outside."""
NETWORKS: Final = {*OUTSIDE, *(network for networks in OFFERED.values() for network in networks)}
METADATA_SERVICE: Final = "169.254.0.0/16"
"""Clouds give credentials of the node there."""
EVERYWHERE: Final = "0.0.0.0/0"
POSTGRES: Final = {"data": "postgres", "data-ha": "patroni"}
"""The component with Postgres, by profile."""
DNS_PORTS: Final = (53, "53/UDP")
API_SERVER_PORTS: Final = (443, 6443)


def policies(cluster: Cluster) -> list[Manifest]:
    """Return the policies of the components that run."""
    running = components(cluster)
    offered = {component: OFFERED[component] for component in OFFERED if component in running}
    return [
        deny_all(cluster),
        *(incoming(cluster, component, networks) for component, networks in offered.items()),
        *(each for network in sorted(NETWORKS) if (each := outgoing(cluster, network, offered))["spec"]["egress"]),
        *(outside(cluster, network, port) for network, port in remote_parts.ports(cluster.settings).items()),
        *(
            policy(cluster, f"{component}-peers", component_is(component), peer_rules(component))
            for component in PEERS
            if component in running and (component == ALERTMANAGER or "data-ha" in cluster.profiles)
        ),
    ]


def components(cluster: Cluster) -> set[str]:
    """Return the components that run."""
    on = cluster.profiles
    telemetry = {*telemetry_parts.PORTS, ALERTMANAGER} if "observability" in on else set()
    return {GATEWAY, EXECUTION_API, API_SERVER, *telemetry, *components_of(on)}


def deny_all(cluster: Cluster) -> Manifest:
    """Return the policy that denies every connection of every pod but its queries of the DNS."""
    rules = {"egress": [{"to": [{"namespaceSelector": {}}], "ports": ports(*DNS_PORTS)}]}
    return policy(cluster, "deny-all", {}, {"ingress": [], **rules})


def incoming(cluster: Cluster, component: str, networks: Mapping[str, tuple[int | str, ...]]) -> Manifest:
    """Return the policy of the connections that a component accepts."""
    rules: list[Manifest] = []
    for network, offered in networks.items():
        sources: list[Manifest] = [{"podSelector": on_network(network)}]
        if network == "monitoring":
            namespace = {"kubernetes.io/metadata.name": cluster.settings["KUBERNETES_MONITORING_NAMESPACE"]}
            sources.append({"namespaceSelector": {"matchLabels": namespace}})
        rules.append({"from": sources, "ports": ports(*offered)})
    if component in PUBLISHED:
        rules.append({"ports": ports(API_PORT)})
    return policy(cluster, f"{component}-offers", component_is(component), {"ingress": rules})


def outgoing(cluster: Cluster, network: str, offered: Mapping[str, Mapping[str, tuple[int | str, ...]]]) -> Manifest:
    """Return the policy of the connections that the pods on a network may open."""
    rules: list[Manifest] = [
        {"to": [{"podSelector": component_is(component)}], "ports": ports(*networks[network])}
        for component, networks in offered.items()
        if network in networks
    ]
    if network in OUTSIDE:
        rules.append({"to": [{"ipBlock": {"cidr": EVERYWHERE, "except": [METADATA_SERVICE]}}]})
    elif network in ("database", "broker") and not cluster.profiles & set(DATA_PROFILES):
        port = cluster.settings["POSTGRES_PORT" if network == "database" else "REDIS_PORT"]
        rules.append({"to": [{"ipBlock": {"cidr": EVERYWHERE}}, {"namespaceSelector": {}}], "ports": ports(int(port))})
    return policy(cluster, f"on-{network}", on_network(network), {"egress": rules})


def from_keda(cluster: Cluster) -> list[Manifest]:
    """Return the policy by which KEDA counts tasks in the installation's own Postgres; none without autoscaling."""
    if worker_bounds.bounds(cluster.settings) is None:
        return []
    namespace = {"kubernetes.io/metadata.name": cluster.settings["KUBERNETES_KEDA_NAMESPACE"]}
    rules = {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": namespace}}], "ports": ports(5432)}]}
    return [
        policy(cluster, f"keda-reaches-{component}", component_is(component), rules)
        for profile, component in POSTGRES.items()
        if profile in cluster.profiles
    ]


def outside(cluster: Cluster, network: str, port: int) -> Manifest:
    """Return the policy of pods that reach one port anywhere, also in this cluster."""
    anywhere = [{"ipBlock": {"cidr": EVERYWHERE, "except": [METADATA_SERVICE]}}, {"namespaceSelector": {}}]
    return policy(cluster, f"on-{network}", on_network(network), {"egress": [{"to": anywhere, "ports": ports(port)}]})


def peer_rules(component: str) -> Manifest:
    """Return the connections inside the data tier. Patroni keeps its leader lock in Kubernetes' API."""
    reached = PEERS[component]
    accepted = [(other, port) for other, peers in PEERS.items() for target, port in peers if target == component]
    egress: list[Manifest] = [{"to": [{"podSelector": component_is(to)}], "ports": ports(port)} for to, port in reached]
    if component == "patroni":
        egress.append({"to": [{"ipBlock": {"cidr": EVERYWHERE}}], "ports": ports(*API_SERVER_PORTS)})
    return {
        "ingress": [{"from": [{"podSelector": component_is(of)}], "ports": ports(port)} for of, port in accepted],
        "egress": egress,
    }


def policy(cluster: Cluster, name: str, pods: Manifest, rules: Mapping[str, Any]) -> Manifest:
    """Return a policy of the pods that a selector selects."""
    kinds = [kind.capitalize() for kind in rules]
    spec = {"podSelector": pods, "policyTypes": kinds, **rules}
    return manifests.manifest("networking.k8s.io/v1", "NetworkPolicy", f"airflow-ha-{name}", cluster, spec=spec)


def component_is(component: str) -> Manifest:
    """Return the selector of a component's pods."""
    return {"matchLabels": {"component": component}}


def on_network(network: str) -> Manifest:
    """Return the selector of the pods on a network."""
    return {"matchLabels": {f"{NETWORK_LABEL}/{network}": "true"}}


def ports(*listed: int | str) -> list[Manifest]:
    """Return ports; a text such as 53/UDP names the protocol."""
    return [
        {"port": int(number), "protocol": protocol or "TCP"}
        for number, _, protocol in (str(port).partition("/") for port in listed)
    ]
