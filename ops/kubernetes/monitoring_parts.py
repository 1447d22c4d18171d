"""Objects of the Prometheus Operator, from alerting/, compose/prometheus and ops/dashboards.

They suit a Prometheus that sees this namespace only, or one with `enforcedNamespaceLabel: namespace`: the rules name no
namespace. The kubelet's metrics and kube-state-metrics replace our cAdvisor as sources.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from ops import worker_bounds
from ops.kubernetes import manifests
from ops.kubernetes.telemetry_parts import COLLECTOR, POSTGRES_EXPORTER, REDIS_EXPORTER, STATSD
from ops.kubernetes.translation import PREFIX, network_labels, secret_name
from ops.observability import alertmanager_config, container_names, expected_replicas, generated_config
from ops.observability.metric_contract import DASHBOARDS, rule_files
from ops.services import ALERTMANAGERS, GATEWAY, POSTGRES_NODES, REDIS_NODES, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from ops.kubernetes.translation import Cluster, Manifest

OPERATOR: Final = "monitoring.coreos.com/v1"
ALERTMANAGER: Final = "alertmanager"
POD_AS_INSTANCE: Final = 'label_replace({0}, "airflow_instance", "$1", "pod", "(.+)")'
OOM_KILLS: Final = POD_AS_INSTANCE.format(
    # A killed container takes its own count with it.
    'increase(container_oom_events_total{container!=""}[15m]) > 0 or on (pod, container)'
    " increase(kube_pod_container_status_restarts_total[15m]) and on (pod, container)"
    ' kube_pod_container_status_last_terminated_reason{reason="OOMKilled"} == 1'
)
REPLACED: Final[Mapping[str, str]] = {
    **{
        metric: POD_AS_INSTANCE.format(f'{metric}{{container!=""}}')
        for metric in ("container_memory_working_set_bytes", "container_spec_memory_limit_bytes")
    },
    "increase(airflow_ha_container_oom_kills[15m])": OOM_KILLS,
    # On Docker one disk has all volumes.
    "max(airflow_ha_disk_used_ratio)": (
        "max(airflow_ha_disk_used_ratio or kubelet_volume_stats_used_bytes / kubelet_volume_stats_capacity_bytes)"
    ),
    # The cluster's own Prometheus has another job.
    'process_start_time_seconds{job="prometheus"}': (
        "process_start_time_seconds and on (instance) prometheus_build_info"
    ),
}
"""Parts of rules that name a source which only Docker has, and their replacement."""
CONTAINERS_RULE: Final[Manifest] = {
    "record": container_names.RECORDED,
    "expr": (
        "max by (airflow_instance, service) (label_replace("
        + POD_AS_INSTANCE.format('kube_pod_container_info{container!~"git-sync.*"}')
        + ', "service", "$1", "container", "(.+)"))'
    ),
}
"""The component of each pod, as ops/observability/container_names.py has it for containers on Docker."""
CLUSTER_METRICS: Final = {
    "container_memory_working_set_bytes",
    "container_spec_memory_limit_bytes",
    "container_oom_events_total",
    "kubelet_volume_stats_used_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "kube_pod_container_info",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_last_terminated_reason",
    "prometheus_build_info",
}
"""What the rules query of the cluster itself: its kubelets, kube-state-metrics and Prometheus."""
WITHOUT_SOURCE: Final[Mapping[str, str]] = {
    "airflow_ha_container_oom_kills": "the kubelet counts the kills (OOM_KILLS)",
    **dict.fromkeys(
        (
            *("BackupOverdue", "BackupFails", "BackupArchiveLags", "BackupRepositoryDown", "BackupFilesFail"),
            *("BackupDamaged", "BackupVerificationFailed", "BackupUnverified"),
        ),
        "the profile backup runs on Docker only",
    ),
    "CertificateExpiring": "TLS=on is refused on Kubernetes",
}
"""The alerts and recorded metrics that are not installed, and why."""


# ---- rules


def prometheus_rules(cluster: Cluster, root: Path) -> list[Manifest]:
    """Return one PrometheusRule for each file of rules, without the alerts that have no source here."""
    objects = [
        rule_object(cluster, path.stem, kept_groups(yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]))
        for path in rule_files(root)
    ]
    limits = worker_bounds.bounds(cluster.settings)
    # KEDA changes the number of workers, and no rule with it: fewer than the floor are missing.
    fewest = {replicas_variable(worker_bounds.SERVICE): str(limits.floor)} if limits else {}
    expected = yaml.safe_load(expected_replicas.rules({**cluster.settings, **fewest}))["groups"]
    containers = {"name": "airflow-containers", "interval": "15s", "rules": [CONTAINERS_RULE]}
    return [*objects, rule_object(cluster, "kubernetes", [*expected, containers])]


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
    """Return whether a rule has sources here."""
    return (rule.get("alert") or rule["record"]) not in WITHOUT_SOURCE


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
        service_monitor(cluster, GATEWAY, [("gateway", "metrics", jobs)]),
        service_monitor(cluster, ALERTMANAGER, [("alertmanager", "http", jobs)]),
    ]
    if "data-ha" not in cluster.profiles:
        found += [
            service_monitor(cluster, POSTGRES_EXPORTER, [("postgres", "metrics", jobs)]),
            service_monitor(cluster, REDIS_EXPORTER, [("redis", "metrics", jobs)]),
        ]
    else:
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
        **log_in(job),
        **({"metricRelabelings": relabelings} if relabelings else {}),
    }


TIMES: Final = {"interval": "scrape_interval", "scrapeTimeout": "scrape_timeout"}


def log_in(job: Mapping[str, Any]) -> Manifest:
    """Return how Prometheus logs in to the targets of a job, if it has to."""
    if "basic_auth" not in job:
        return {}
    keys = {"username": "username", "password": "observability_password"}
    secret = secret_name("prometheus")
    return {"basicAuth": {name: {"name": secret, "key": key} for name, key in keys.items()}}


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
    spec = {
        "jobName": job["job_name"],
        "prober": {"url": exporter, "path": path},
        **{name: job[key] for name, key in TIMES.items() if key in job},
        "targets": {"staticConfig": {"static": list(targets)}},
        **({"module": "monitoring", **log_in(job)} if "basic_auth" in job else {}),
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
    """Return two Alertmanagers, their routes and templates, and a Service for each, named as on Docker.

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
    networks = network_labels(cluster.service(ALERTMANAGERS[0]))
    spec = {
        "replicas": len(ALERTMANAGERS),
        "configSecret": name,
        "secrets": [secret_name("alertmanager")],
        "podMetadata": {"labels": {"component": ALERTMANAGER, **networks}},
        "automountServiceAccountToken": False,
    }
    services = [
        manifests.manifest(
            "v1",
            "Service",
            service,
            cluster,
            metadata={"labels": {"component": ALERTMANAGER}},
            spec={
                "clusterIP": "None",
                "selector": {"statefulset.kubernetes.io/pod-name": f"alertmanager-{PREFIX}-{number}"},
                "ports": [{"name": "http", "port": 9093}],
            },
        )
        for number, service in enumerate(ALERTMANAGERS)
    ]
    return [config, manifests.manifest(OPERATOR, "Alertmanager", PREFIX, cluster, spec=spec), *services]


SLACK: Final = "slack_webhook_url"
"""The Slack stub is not on Kubernetes: without a webhook the messages go nowhere."""
