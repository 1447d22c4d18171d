"""Objects of the Prometheus Operator, from alerting/, compose/prometheus and ops/dashboards.

They suit a Prometheus that sees this namespace only, or one with `enforcedNamespaceLabel: namespace`: the rules name no
namespace. kube-state-metrics and the kubelet's cAdvisor replace the gateway and our cAdvisor as sources.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from ops import worker_bounds
from ops.kubernetes import manifests
from ops.kubernetes.telemetry_parts import COLLECTOR, POSTGRES_EXPORTER, REDIS_EXPORTER, STATSD
from ops.kubernetes.translation import PREFIX, secret_name
from ops.observability import alertmanager_config, expected_replicas, generated_config
from ops.observability.metric_contract import DASHBOARDS, EXPORTED, queried_metrics, rule_files
from ops.services import POSTGRES_NODES, REDIS_NODES, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from ops.kubernetes.translation import Cluster, Manifest

OPERATOR: Final = "monitoring.coreos.com/v1"
API_READY: Final = "airflow_ha_api_ready"
PODS: Final = 'pod=~"(.+-)?(api-server|execution-api)-[^-]+-[^-]+"'
POD_AS_INSTANCE: Final = 'label_replace({0}{{container!=""}}, "airflow_instance", "$1", "pod", "(.+)")'
REPLACED: Final[Mapping[str, str]] = {
    'haproxy_server_status{state="UP", proxy=~"api-server|execution-api"}': API_READY,
    'up{job="gateway"}': 'up{job="kube-state-metrics"}',
    **{
        metric: POD_AS_INSTANCE.format(metric)
        for metric in ("container_memory_working_set_bytes", "container_spec_memory_limit_bytes")
    },
}
"""Parts of rules that name a source which only Docker has, and their replacement."""
READY_RULE: Final[Manifest] = {
    "record": API_READY,
    "expr": (
        f'label_replace(kube_pod_status_ready{{condition="true", {PODS}}}, "proxy", "$2", "pod",'
        ' "(.+-)?(api-server|execution-api)-[^-]+-[^-]+")'
    ),
}
"""1 for each API server that is ready, by kube-state-metrics; what the gateway's state of servers is on Docker."""
GATEWAY_ALERT: Final = "GatewayDown"


# ---- rules


def prometheus_rules(cluster: Cluster, root: Path) -> list[Manifest]:
    """Return one PrometheusRule for each file of rules, without those about the gateway."""
    objects = [
        rule_object(cluster, path.stem, kept_groups(yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]))
        for path in rule_files(root)
    ]
    limits = worker_bounds.bounds(cluster.settings)
    # KEDA changes the number of workers, and no rule with it: fewer than the floor are missing.
    fewest = {replicas_variable(worker_bounds.SERVICE): str(limits.floor)} if limits else {}
    expected = yaml.safe_load(expected_replicas.rules({**cluster.settings, **fewest}))["groups"]
    ready = {"name": "airflow-kubernetes", "interval": "5s", "rules": [READY_RULE]}
    return [*objects, rule_object(cluster, "kubernetes", [*expected, ready])]


def rule_object(cluster: Cluster, name: str, groups: Sequence[Manifest]) -> Manifest:
    """Return a PrometheusRule."""
    return manifests.manifest(
        OPERATOR,
        "PrometheusRule",
        f"{PREFIX}-{name.replace('_', '-')}",
        cluster,
        metadata={"labels": {"role": "alert-rules"}},
        spec={"groups": list(groups)},
    )


def kept_groups(groups: Sequence[Manifest]) -> list[Manifest]:
    """Return groups of rules with their sources on Kubernetes; groups without a rule that applies are left out."""
    kept = [group | {"rules": [adapted(rule) for rule in group["rules"] if applies(rule)]} for group in groups]
    return [group for group in kept if group["rules"]]


def adapted(rule: Manifest) -> Manifest:
    """Return a rule with its sources on Kubernetes."""
    expression = str(rule["expr"])
    for docker, kubernetes in REPLACED.items():
        expression = expression.replace(docker, kubernetes)
    return rule | {"expr": expression}


def applies(rule: Manifest) -> bool:
    """Return whether a rule still has sources: none of the gateway's metrics, nor those recorded from them."""
    gateway = EXPORTED["gateway"].metrics | {"airflow_api_responses"}
    queried = queried_metrics(str(adapted(rule)["expr"])).names
    return rule.get("alert") != GATEWAY_ALERT and queried.isdisjoint(gateway)


# ---- scrapes


def monitors(cluster: Cluster, root: Path) -> list[Manifest]:
    """Return a monitor for each scrape job of compose/prometheus/prometheus.yaml that Kubernetes has."""
    config = yaml.safe_load((root / "compose/prometheus/prometheus.yaml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    found = [
        service_monitor(cluster, STATSD, [("statsd-exporter", "metrics", jobs)]),
        service_monitor(
            cluster,
            COLLECTOR,
            [
                ("otel-collector", "metrics", jobs),
                ("otel-collector-metrics", "statsd-metrics", jobs),
                ("otel-collector-metrics", "own-metrics", jobs),
            ],
        ),
    ]
    if "data" in cluster.profiles:
        found += [
            service_monitor(cluster, POSTGRES_EXPORTER, [("postgres", "metrics", jobs)]),
            service_monitor(cluster, REDIS_EXPORTER, [("redis", "metrics", jobs)]),
        ]
    if "data-ha" in cluster.profiles:
        found += [
            node_probe(cluster, jobs["postgres"], f"{POSTGRES_EXPORTER}:9187", "/probe", postgres_targets()),
            node_probe(cluster, jobs["redis"], f"{REDIS_EXPORTER}:9121", "/scrape", redis_targets()),
        ]
    return found


def service_monitor(
    cluster: Cluster, component: str, endpoints: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> Manifest:
    """Return the monitor of a component's Service.

    Args:
        cluster: The cluster.
        component: The component.
        endpoints: Job, port of the Service, and all jobs of Prometheus on Docker.
    """
    spec = {
        "selector": {"matchLabels": {"component": component, "release": cluster.release}},
        "endpoints": [endpoint(jobs[job], port) for job, port, jobs in endpoints],
    }
    if limits := [jobs[job]["sample_limit"] for job, _, jobs in endpoints if "sample_limit" in jobs[job]]:
        spec["sampleLimit"] = max(limits)
    return manifests.manifest(OPERATOR, "ServiceMonitor", f"{PREFIX}-{component}", cluster, spec=spec)


def endpoint(job: Mapping[str, Any], port: str) -> Manifest:
    """Return an endpoint with the settings of a job on Docker, under the same name of the job."""
    times = {name: job[key] for name, key in TIMES.items() if key in job}
    relabelings = [operator_form(each) for each in job.get("metric_relabel_configs", [])]
    return {
        "port": port,
        **times,
        "honorLabels": bool(job.get("honor_labels", False)),
        "relabelings": [{"targetLabel": "job", "replacement": job["job_name"]}],
        **({"metricRelabelings": relabelings} if relabelings else {}),
    }


TIMES: Final = {"interval": "scrape_interval", "scrapeTimeout": "scrape_timeout"}


def operator_form(relabeling: Mapping[str, Any]) -> Manifest:
    """Return a relabeling with the operator's names of its keys."""
    return {re.sub(r"_(\w)", lambda match: match[1].upper(), key): value for key, value in relabeling.items()}


def postgres_targets() -> list[str]:
    """Return the nodes that postgres-exporter connects to."""
    return [f"{node}:5432/postgres" for node in POSTGRES_NODES]


def redis_targets() -> list[str]:
    """Return the nodes that redis-exporter connects to."""
    return [f"redis://{node}:6379" for node in REDIS_NODES]


def node_probe(cluster: Cluster, job: Mapping[str, Any], exporter: str, path: str, targets: Sequence[str]) -> Manifest:
    """Return a Probe: the exporter connects to each node that Prometheus names."""
    login = {}
    if "basic_auth" in job:
        secret = secret_name("prometheus")
        login = {
            "module": "monitoring",
            "basicAuth": {
                "username": {"name": secret, "key": "username"},
                "password": {"name": secret, "key": "observability_password"},
            },
        }
    spec = {
        "jobName": job["job_name"],
        "prober": {"url": exporter, "path": path},
        **{name: job[key] for name, key in TIMES.items() if key in job},
        "targets": {"staticConfig": {"static": list(targets)}},
        **login,
    }
    return manifests.manifest(OPERATOR, "Probe", f"{PREFIX}-{job['job_name']}", cluster, spec=spec)


# ---- dashboards and notifications


def dashboards(cluster: Cluster, root: Path) -> list[Manifest]:
    """Return a ConfigMap for each dashboard, with the label by which Grafana's sidecar finds it."""
    return [
        manifests.config_map(
            f"{PREFIX}-dashboard-{path.stem}",
            cluster,
            {path.name: path.read_text(encoding="utf-8")},
            labels={"grafana_dashboard": "1"},
        )
        for path in sorted((root / DASHBOARDS).glob("*.json"))
    ]


CONFIG_FOLDER: Final = "/etc/alertmanager/config"
OPERATOR_SECRETS: Final = f"/etc/alertmanager/secrets/{secret_name('alertmanager')}"


def alertmanager(cluster: Cluster, root: Path, secrets: Collection[str]) -> list[Manifest]:
    """Return two Alertmanagers, and their routes and templates.

    Args:
        cluster: The cluster.
        root: The repository.
        secrets: The optional secrets that exist.
    """
    folder = root / alertmanager_config.FOLDER
    routes = alertmanager_config.render(folder, cluster.settings, {*secrets, SLACK})
    for docker in ("/etc/alertmanager/templates", "/etc/alertmanager/generated"):
        routes = routes.replace(docker, CONFIG_FOLDER)
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((folder / "templates").glob("*.tmpl"))}
    name = f"{PREFIX}-alertmanager-config"
    config = manifests.manifest(
        "v1",
        "Secret",
        name,
        cluster,
        stringData={
            "alertmanager.yaml": routes.replace("/run/secrets", OPERATOR_SECRETS),
            "links.tmpl": generated_config.links(cluster.settings),
            **texts,
        },
    )
    spec = {
        "replicas": 2,
        "configSecret": name,
        "secrets": [secret_name("alertmanager")],
        "podMetadata": {"labels": {"component": "alertmanager"}},
        "automountServiceAccountToken": False,
    }
    return [config, manifests.manifest(OPERATOR, "Alertmanager", PREFIX, cluster, spec=spec)]


SLACK: Final = "slack_webhook_url"
"""The Slack stub is not on Kubernetes: without a webhook the messages go nowhere."""
