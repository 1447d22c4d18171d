"""The network policies allow what compose's networks allow, and the boundaries of .github/SECURITY.md."""

from __future__ import annotations

from itertools import product

import pytest

from ops.kubernetes import translation
from ops.kubernetes.policies import OFFERED
from ops.kubernetes.schema_check import VARIANTS
from ops.kubernetes.translation import API_PORT
from tests.unit.kubernetes.rendered import cluster_with, manifests_with

GIVEN = VARIANTS["replicated data"]
ON_DOCKER = {"patroni": "patroni-1", "redis": "redis-1", "sentinel": "sentinel-1", "alertmanager": "alertmanager-1"}
CLIENTS = (
    *("api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker", "maintenance", "migrate"),
    *("flower", "statsd-exporter", "otel-collector", "postgres-exporter", "redis-exporter", "gateway", "alertmanager"),
)


def labels(component, given=GIVEN):
    of = cluster_with(*given).service(ON_DOCKER.get(component, component))
    return {"component": component, **translation.network_labels(of)}


def selects(selector, pod):
    return all(pod.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def port_matches(rule, port, protocol):
    listed = rule.get("ports")
    return listed is None or any(each["port"] == port and each["protocol"] == protocol for each in listed)


def peer_matches(peers, pod):
    if peers is None:
        return True
    inside = any("podSelector" in peer and selects(peer["podSelector"], pod) for peer in peers)
    return inside or any("ipBlock" in peer for peer in peers)


def is_allowed(client, server, port, protocol="TCP", given=GIVEN):
    """Whether policies let one pod open a connection to another, as a network that enforces them decides."""
    policies = [each["spec"] for each in manifests_with(*given) if each["kind"] == "NetworkPolicy"]
    out, to = labels(client, given), labels(server, given)

    def any_rule(direction, key, own, other):
        applying = [
            policy
            for policy in policies
            if direction.capitalize() in policy["policyTypes"] and selects(policy["podSelector"], own)
        ]
        assert applying, "nothing is open by default"
        return any(
            port_matches(rule, port, protocol) and peer_matches(rule.get(key), other)
            for policy in applying
            for rule in policy.get(direction, [])
        )

    return any_rule("egress", "to", out, to) and any_rule("ingress", "from", to, out)


def offered_ports(server):
    for network, ports in OFFERED[server].items():
        for port in ports:
            number, _, protocol = str(port).partition("/")
            yield network, int(number), protocol or "TCP"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_pod_reaches_what_its_service_reaches_on_docker(client):
    cluster = cluster_with(*GIVEN)
    wrong = []
    for server in OFFERED:
        if server == "postgres" or server == client:
            continue
        for network, port, protocol in offered_ports(server):
            server_networks = cluster.service(ON_DOCKER.get(server, server)).networks
            shared = network in cluster.service(ON_DOCKER.get(client, client)).networks and network in server_networks
            expected = shared or (server == "gateway" and port == API_PORT and client in OUTSIDE)
            if is_allowed(client, server, port, protocol) != expected:
                wrong.append((server, port, "denied" if expected else "allowed"))
    assert wrong == []


OUTSIDE = {"worker", "triggerer", "otel-collector", "gateway", "alertmanager"}
"""They reach any address; the gateway accepts every connection of users, and APIs ask for a log-in."""


def test_a_task_reaches_both_apis_through_the_gateway_only():
    assert is_allowed("worker", "gateway", 8081)
    for client, server in product(("worker", "triggerer"), ("api-server", "execution-api")):
        assert not is_allowed(client, server, API_PORT)
        assert is_allowed("gateway", server, API_PORT)


def test_alertmanagers_reach_each_other_and_take_alerts_from_the_gateway():
    assert is_allowed("alertmanager", "alertmanager", 9094)
    assert is_allowed("alertmanager", "alertmanager", 9094, "UDP")
    assert is_allowed("gateway", "alertmanager", 9093)
    assert not is_allowed("worker", "alertmanager", 9093)


@pytest.mark.parametrize(
    ("variant", "network", "port"),
    [("Git and S3", "git", 443), ("Git and S3", "remote-logs", 9000), ("Git by SSH", "git", 22)],
)
def test_who_reads_git_or_writes_logs_reaches_that_port_outside(variant, network, port):
    policies = {
        each["metadata"]["name"]: each["spec"] for each in manifests_with(*VARIANTS[variant]) if is_policy(each)
    }
    spec = policies[f"airflow-ha-on-{network}"]
    assert [each["port"] for rule in spec["egress"] for each in rule["ports"]] == [port]
    clients = {"git": "dag-processor", "remote-logs": "api-server"}
    assert selects(spec["podSelector"], labels(clients[network], VARIANTS[variant]))
    assert not selects(spec["podSelector"], labels("scheduler", VARIANTS[variant]))
    assert f"airflow-ha-on-{network}" not in {each["metadata"]["name"] for each in manifests_with(*GIVEN)}


def is_policy(document):
    return document["kind"] == "NetworkPolicy"


def test_a_task_reaches_no_metrics_and_no_page():
    for server, port in (("statsd-exporter", 9102), ("otel-collector", 8889), ("postgres-exporter", 9187)):
        assert not is_allowed("worker", server, port), server


def test_only_patroni_reaches_patronis_api():
    assert is_allowed("patroni", "patroni", 8008)
    assert not any(is_allowed(client, "patroni", 8008) for client in CLIENTS)


def test_redis_and_its_sentinels_reach_each_other():
    assert is_allowed("sentinel", "redis", 6379)
    assert is_allowed("redis", "sentinel", 26379)
    assert is_allowed("redis", "redis", 6379)


def test_components_reach_an_external_database_and_no_other_port():
    given = VARIANTS["external data"]
    policies = {
        each["metadata"]["name"]: each["spec"] for each in manifests_with(*given) if each["kind"] == "NetworkPolicy"
    }
    (rule,) = policies["airflow-ha-on-database"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [5432]


def test_no_pod_reaches_the_metadata_service_of_a_cloud():
    blocks = [
        peer["ipBlock"]
        for each in manifests_with(*GIVEN)
        if each["kind"] == "NetworkPolicy"
        for rule in each["spec"].get("egress", [])
        if "ports" not in rule
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    assert blocks
    assert all("169.254.0.0/16" in block["except"] for block in blocks)
