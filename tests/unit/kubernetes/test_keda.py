"""With a ceiling, KEDA scales workers by the figure and the bounds of Docker's autoscaling."""

from __future__ import annotations

import pytest

from airflow_ha.queues.demand import workers_query
from ops.kubernetes import keda, policies, rendering
from tests.unit.kubernetes.rendered import chart_manifests, cluster_with, manifests_with

SETTINGS = ("WORKER_FLOOR=3", "WORKER_CEILING=8", "WORKER_CONCURRENCY=4", "WORKER_QUEUES=default,high")


def celery(*given):
    return rendering.chart_values(cluster_with(*given))["workers"]["celery"]


def test_without_a_ceiling_the_number_of_workers_is_fixed():
    assert "keda" not in celery("WORKER_FLOOR=3")
    assert keda.CONNECTION not in [each["name"] for each in celery()["env"]]
    assert policies.from_keda(cluster_with("COMPOSE_PROFILES=data")) == []


def test_keda_has_the_bounds_and_the_statement_of_docker():
    values = celery(*SETTINGS)["keda"]
    assert (values["minReplicaCount"], values["maxReplicaCount"]) == (3, 8)
    assert values["query"] == workers_query("default,high", 4)
    assert "{{" not in values["query"], "the chart renders it as a template"


def test_the_log_in_is_a_reference_to_a_secret():
    (log_in,) = [each for each in celery(*SETTINGS)["env"] if each["name"] == keda.CONNECTION]
    assert log_in["valueFrom"]["secretKeyRef"]["name"] == keda.SECRET


def test_one_scheduler_fills_the_slots_of_the_most_workers():
    env = rendering.chart_values(cluster_with(*SETTINGS))["scheduler"]["env"]
    assert {"name": "AIRFLOW__CORE__PARALLELISM", "value": str(8 * 4)} in env


def test_alerts_expect_the_floor_and_know_the_ceiling():
    rules = {
        rule["labels"]["component"] if "labels" in rule else rule["record"]: rule["expr"]
        for each in manifests_with(*SETTINGS)
        if each["metadata"]["name"] == "airflow-ha-kubernetes"
        for rule in each["spec"]["groups"][0]["rules"]
    }
    assert rules["worker"] == rules["airflow_ha_workers_floor"] == "vector(3)"
    assert rules["airflow_ha_workers_ceiling"] == "vector(8)"


@pytest.mark.parametrize(("profile", "component"), sorted(policies.POSTGRES.items()))
def test_keda_reaches_only_postgres_of_the_installation(profile, component):
    of = cluster_with(
        *SETTINGS, f"COMPOSE_PROFILES={profile}", "PATRONI_IMAGE=a:1", "KUBERNETES_KEDA_NAMESPACE=scalers"
    )
    (offered,) = policies.from_keda(of)
    assert offered["spec"]["podSelector"] == {"matchLabels": {"component": component}}
    assert "scalers" in str(offered["spec"]["ingress"])


def test_the_chart_makes_a_scaled_object_and_no_fixed_number(tmp_path):
    rendered = chart_manifests(tmp_path, SETTINGS)
    (scaled,) = [document for document in rendered if document["kind"] == "ScaledObject"]
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (3, 8)
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["query"] == workers_query("default,high", 4)
    (worker,) = [
        each
        for each in rendered
        if each["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"] and each["kind"] == "Deployment"
    ]
    assert "replicas" not in worker["spec"]
    assert trigger["metadata"]["connectionFromEnv"] in str(worker["spec"]["template"])
