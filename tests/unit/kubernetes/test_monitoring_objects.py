"""Rules, monitors, dashboards and routes for the Prometheus Operator are those of Docker, and have sources."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from ops.kubernetes import monitoring_parts
from ops.kubernetes.monitoring_parts import CLUSTER_METRICS, WITHOUT_SOURCE
from ops.kubernetes.schema_check import VARIANTS
from ops.observability import expected_replicas
from ops.observability.metric_contract import (
    EXPORTED,
    MAPPING,
    collector_metrics,
    mapped_metrics,
    mapping_rules,
    own_metrics,
    rule_files,
    unknown_in,
)
from ops.project import ROOT
from tests.unit.kubernetes.rendered import manifests_with

AIRFLOW = Path(find_spec("airflow").origin).parent
README = (ROOT / "ops/kubernetes/README.md").read_text()


def rules_on_docker():
    return [
        rule
        for path in rule_files(ROOT)
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


@pytest.fixture
def objects():
    return manifests_with(*VARIANTS["replicated data"])


def of_kind(objects, kind):
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def installed_rules(objects):
    return [
        rule
        for each in of_kind(objects, "PrometheusRule").values()
        for group in each["spec"]["groups"]
        for rule in group["rules"]
    ]


def test_every_alert_is_installed_or_has_no_source_for_a_stated_reason(objects):
    def names(rules):
        return {rule.get("alert") or rule["record"] for rule in rules}

    assert names(rules_on_docker()) - names(installed_rules(objects)) == WITHOUT_SOURCE.keys()
    assert all(WITHOUT_SOURCE.values())


def scraped_jobs(objects):
    endpoints = [
        endpoint for each in of_kind(objects, "ServiceMonitor").values() for endpoint in each["spec"]["endpoints"]
    ]
    jobs = {endpoint["relabelings"][0]["replacement"] for endpoint in endpoints}
    return jobs | {each["spec"]["jobName"] for each in of_kind(objects, "Probe").values()}


@pytest.mark.parametrize("variant", ["external data", "replicated data", "single data"])
def test_every_installed_rule_queries_what_a_source_here_exports(variant):
    objects = manifests_with(*VARIANTS[variant])
    rules, jobs = installed_rules(objects), scraped_jobs(objects)
    exporter = {"postgres": "postgres-exporter", "redis": "redis-exporter"}
    exported = {name for job in jobs for name in exporting(exporter.get(job, job))}
    mapping = mapping_rules((ROOT / MAPPING).read_text())
    sent = mapped_metrics(AIRFLOW, mapping) | collector_metrics(AIRFLOW) | own_metrics(ROOT, mapping)
    # Only Docker has the services that send these.
    sent = {name for name in sent if not name.startswith(("airflow_ha_backup_", "airflow_ha_container"))}
    # The bounds of the number of workers are recorded with autoscaling only.
    recorded = {rule["record"] for rule in rules if "record" in rule} | set(expected_replicas.BOUNDS)
    known = sent | recorded | exported | set(EXPORTED["prometheus"].metrics) | CLUSTER_METRICS
    unknown = {rule.get("alert") or rule["record"]: unknown_in(rule["expr"], known) for rule in rules}
    assert {name: metrics for name, metrics in unknown.items() if metrics} == {}
    named = {job for rule in rules for job in re.findall(r'job(?:=|=~)"([^"]+)"', rule["expr"])}
    assert {job for text in named for job in text.split("|")} <= jobs


def exporting(job):
    return EXPORTED[job].metrics if job in EXPORTED else frozenset()


def test_the_readme_names_the_sources_that_the_cluster_has_to_have():
    assert [name for name in ("kube-state-metrics", "kubelet", "singleProcessOOMKill") if name not in README] == []


@pytest.mark.parametrize("text", monitoring_parts.REPLACED)
def test_each_replaced_part_is_still_in_a_rule(text):
    assert any(text in rule["expr"] for rule in rules_on_docker())


def test_expected_replicas_are_those_of_the_settings():
    objects = manifests_with("WORKER_REPLICAS=7")
    rules = of_kind(objects, "PrometheusRule")["airflow-ha-kubernetes"]["spec"]["groups"][0]["rules"]
    assert {rule["labels"]["component"]: rule["expr"] for rule in rules if "labels" in rule}["worker"] == "vector(7)"


def test_scrapes_have_the_names_and_times_of_docker(objects):
    config = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    endpoints = [
        endpoint for each in of_kind(objects, "ServiceMonitor").values() for endpoint in each["spec"]["endpoints"]
    ]
    for endpoint in endpoints:
        job = jobs[endpoint["relabelings"][0]["replacement"]]
        assert endpoint.get("interval") == job.get("scrape_interval")
    probes = of_kind(objects, "Probe")
    assert {each["spec"]["jobName"] for each in probes.values()} == {"postgres", "redis"}


def test_a_monitor_selects_a_service_with_the_ports_that_it_names(objects):
    services = of_kind(objects, "Service").values()
    for monitor in of_kind(objects, "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        selected = [each for each in services if wanted.items() <= each["metadata"]["labels"].items()]
        assert selected, monitor["metadata"]["name"]
        for service in selected:
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_every_dashboard_is_installed(objects):
    texts = [text for each in of_kind(objects, "ConfigMap").values() for text in each["data"]]
    assert {path.name for path in (ROOT / "ops/dashboards/generated").glob("*.json")} <= set(texts)


def test_routes_name_only_files_that_the_operator_mounts(objects):
    config = of_kind(objects, "Secret")["airflow-ha-alertmanager-config"]["stringData"]
    routes = yaml.safe_load(config["alertmanager.yaml"])
    assert routes["templates"]
    assert all(path.startswith("/etc/alertmanager/config/") for path in routes["templates"])
    assert "/run/secrets" not in config["alertmanager.yaml"]
    assert "slack-stub" not in config["alertmanager.yaml"]
