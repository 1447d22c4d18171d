"""Rules, monitors, dashboards and routes for the Prometheus Operator are those of Docker, without the gateway's."""

from __future__ import annotations

import pytest
import yaml

from ops.kubernetes import monitoring_parts
from ops.kubernetes.schema_check import VARIANTS
from ops.observability.metric_contract import EXPORTED, queried_metrics, rule_files
from ops.project import ROOT
from tests.unit.kubernetes.rendered import manifests_with

GATEWAYS_ALERTS = {"GatewayDown", "ApiErrors", "ApiSlow", "AirflowLogInsRefused"}


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


def test_every_alert_but_the_gateways_is_installed(objects):
    installed = {
        rule["alert"]
        for each in of_kind(objects, "PrometheusRule").values()
        for group in each["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {rule["alert"] for rule in rules_on_docker() if "alert" in rule} - installed == GATEWAYS_ALERTS


def test_no_rule_queries_what_only_the_gateway_has(objects):
    for each in of_kind(objects, "PrometheusRule").values():
        for group in each["spec"]["groups"]:
            for rule in group["rules"]:
                assert queried_metrics(rule["expr"]).names.isdisjoint(EXPORTED["gateway"].metrics), rule
                assert 'job="gateway"' not in rule["expr"], rule


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
        (service,) = [each for each in services if wanted.items() <= each["metadata"]["labels"].items()]
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
