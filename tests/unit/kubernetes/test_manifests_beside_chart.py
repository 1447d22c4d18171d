"""The manifests beside the chart fit together, and are as hardened as the containers on Docker."""

from __future__ import annotations

import re

import pytest

from ops import secrets_store
from ops.kubernetes import rendering, translation
from ops.kubernetes.schema_check import VARIANTS, problems, render
from ops.project import ROOT, Project
from tests.unit.kubernetes.rendered import PROJECT, cluster_with, manifests_with, pod_of


def named(documents, kind):
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_matches_the_schema_of_kubernetes(variant):
    found = [
        problem
        for _, document in render(VARIANTS[variant], with_chart=False)
        if not document["apiVersion"].startswith("monitoring.coreos.com/")
        for problem in problems(document)
    ]
    assert found == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_finds_its_files_volumes_and_secrets(variant):
    documents = manifests_with(*VARIANTS[variant])
    maps, claims = named(documents, "ConfigMap"), named(documents, "PersistentVolumeClaim")
    for document in documents:
        pod = pod_of(document)
        if pod is None:
            continue
        own = {"data"} if document["spec"].get("volumeClaimTemplates") else set()
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            if "configMap" in volume:
                data = maps[volume["configMap"]["name"]]["data"]
                assert {item["key"] for item in volume["configMap"]["items"]} <= data.keys()
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            mounts = [mount["name"] for mount in container["volumeMounts"]]
            assert set(mounts) <= volumes.keys() | own, document["metadata"]["name"]
            assert "none" not in container["image"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_is_hardened_and_limited(variant):
    for document in manifests_with(*VARIANTS[variant]):
        pod = pod_of(document)
        if pod is None:
            continue
        name = document["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            variables = [each["name"] for each in container.get("env", [])]
            assert len(set(variables)) == len(variables), f"the API server refuses {name}"
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("variant", ["single data", "replicated data", "external data"])
def test_every_secret_that_a_pod_mounts_is_written(tmp_path, variant):
    project = Project(PROJECT.root, tmp_path)
    secrets_store.generate(project)
    of = cluster_with(*VARIANTS[variant])
    written = {document["metadata"]["name"]: document["stringData"] for document in rendering.secrets(project, of)}
    for document in manifests_with(*VARIANTS[variant]):
        for volume in (pod_of(document) or {}).get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                if "secret" in source:
                    names = {item["key"] for item in source["secret"]["items"]}
                    assert names <= written[source["secret"]["name"]].keys(), document["metadata"]["name"]


def test_postgres_and_redis_have_the_names_of_docker(cluster):
    documents = manifests_with(*VARIANTS["replicated data"])
    services = named(documents, "Service")
    for name, stateful in named(documents, "StatefulSet").items():
        start, number = stateful["spec"]["ordinals"]["start"], stateful["spec"]["replicas"]
        for node in (f"{name}-{index}" for index in range(start, start + number)):
            assert node in cluster.model["services"], "a service of compose has this name"
            assert services[node]["spec"]["selector"] == {"statefulset.kubernetes.io/pod-name": node}


def test_patroni_keeps_its_lock_in_the_namespace_of_its_pods():
    """The namespace of patroni.yaml, a folder of etcd, wins over any other variable than this one."""
    given = (*VARIANTS["replicated data"], "KUBERNETES_NAMESPACE=here")
    template = named(manifests_with(*given), "StatefulSet")["patroni"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["PATRONI_NAMESPACE"] == "here"
    asked = re.findall(r"PATRONI_KUBERNETES_\w+", (ROOT / "compose/patroni/with-secrets.sh").read_text())
    assert asked
    assert set(asked) <= set(variables), "with-secrets.sh recognizes Kubernetes by these"
    scope = variables["PATRONI_SCOPE"]
    assert template["metadata"]["labels"]["cluster-name"] == scope
    assert f"{scope}-config" != f"{cluster_with(*given).release}-config", "the chart's ConfigMap"


def test_patroni_gets_its_token_beside_its_secrets_and_no_password_of_etcd():
    stateful = named(manifests_with(*VARIANTS["replicated data"]), "StatefulSet")["patroni"]
    (volume,) = [each for each in pod_of(stateful)["volumes"] if each["name"] == "secrets"]
    sources = volume["projected"]["sources"]
    assert any("serviceAccountToken" in source for source in sources)
    paths = [item["path"] for source in sources for item in source.get("secret", {}).get("items", [])]
    assert "postgres_superuser_password" in paths
    assert "etcd_password" not in paths


def test_a_changed_file_changes_the_pods_that_mount_it(cluster, tmp_path):
    from ops.kubernetes import manifests

    of = cluster.service("statsd-exporter")
    before = manifests.files(of, of.name)
    before.data["statsd-exporter.mapping.yaml"] += "#"
    assert before.digest != manifests.files(of, of.name).digest


def test_cpu_requests_keep_the_ratio_of_dockers_weights(cluster):
    def millicores(name):
        return int(translation.resources(cluster.service(name))["requests"]["cpu"].removesuffix("m"))

    assert millicores("execution-api") == pytest.approx(16 * millicores("api-server"), rel=0.05)


@pytest.mark.parametrize("component", ["execution-api", "maintenance", "flower"])
def test_a_component_beside_the_chart_has_the_environment_of_its_service(cluster, component):
    deployment = named(manifests_with(*VARIANTS["replicated data"]), "Deployment")[component]
    (container,) = pod_of(deployment)["containers"]
    here = {each["name"]: each["value"] for each in container["env"]}
    on_docker = cluster.service(component).service["environment"]
    assert on_docker.keys() <= here.keys()
    assert here["AIRFLOW_CONFIG"].startswith("/tmp/"), "the image is read-only; only the chart mounts another"
