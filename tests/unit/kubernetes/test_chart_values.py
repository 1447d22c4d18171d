"""The chart's values are those of the compose files, but for listed differences."""

from __future__ import annotations

import pytest

from ops.kubernetes import translation
from ops.kubernetes.schema_check import VARIANTS
from ops.kubernetes.values import COMPONENTS
from tests.unit.kubernetes.rendered import chart_manifests, cluster_with, pod_of

DIFFERENT = {"AIRFLOW_CONFIG"}
"""The chart mounts its own."""
ADDED = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER", "AIRFLOW_HA_SECRETS_FOLDER"}
PROBED = {name for name in COMPONENTS if name not in ("migrate", "api-server")}


def of_chart(values, name):
    part = values[COMPONENTS[name]]
    return part["celery"] if name == "worker" else part


def environment(values, name):
    listed = [*values["env"], *of_chart(values, name)["env"]]
    assert len({each["name"] for each in listed}) == len(listed), "a later one would hide an earlier one"
    return {each["name"]: each["value"] for each in listed}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_has_the_environment_of_its_service(values, cluster, name):
    on_docker = {key: str(value) for key, value in cluster.service(name).service["environment"].items()}
    moved = {key: text.replace("/run/secrets", translation.SECRETS_FOLDER) for key, text in on_docker.items()}
    here = environment(values, name)
    assert here.keys() - moved.keys() == ADDED
    assert {key for key in moved if here.get(key) != moved[key]} <= DIFFERENT


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_mounts_exactly_the_secrets_of_its_service(values, cluster, name):
    (volume,) = [each for each in of_chart(values, name)["extraVolumes"] if each["name"] == "secrets"]
    mounted = [item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    assert sorted(mounted) == sorted(cluster.service(name).service["secrets"])


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_has_the_memory_and_replicas_of_its_service(values, cluster, name):
    deploy = cluster.service(name).service["deploy"]
    limit = of_chart(values, name)["resources"]["limits"]["memory"]
    assert limit.removesuffix("i").lower() == deploy["resources"]["limits"]["memory"]
    if "replicas" in of_chart(values, name):
        assert of_chart(values, name)["replicas"] == int(deploy["replicas"])


@pytest.mark.parametrize("name", sorted(PROBED))
def test_a_component_is_probed_as_on_docker_and_outlives_an_outage(values, cluster, name):
    probe = of_chart(values, name)["livenessProbe"]
    check = cluster.service(name).service["healthcheck"]["test"]
    assert [word for word in probe["command"] if word != "liveness"] == check[check.index(translation.GUARD) + 2 :]
    assert probe["command"].index("liveness") == probe["command"].index("airflow_ha.health") + 1
    assert probe["failureThreshold"] == int(check[check.index(translation.GUARD) + 1])


@pytest.mark.parametrize("name", COMPONENTS)
def test_no_argument_names_a_file_that_only_docker_mounts(values, name):
    assert not [word for word in of_chart(values, name)["args"] if word.startswith("/usr/local/bin")]


def test_a_worker_has_no_log_in_to_the_metadata_database(values):
    worker = values["workers"]["celery"]
    assert worker["waitForMigrations"] == {"enabled": False}
    assert not any(values["enableBuiltInSecretEnvVars"].values())
    assert "no-access" in environment(values, "worker")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_api_servers_may_only_read_task_logs(values):
    mounts = {mount["mountPath"]: mount["readOnly"] for mount in values["apiServer"]["extraVolumeMounts"][2:]}
    assert mounts[translation.TASK_LOGS] is True
    assert environment(values, "api-server")["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] == translation.TASK_LOGS


def test_a_setting_changes_the_values():
    from ops.kubernetes import rendering

    of = cluster_with("WORKER_REPLICAS=5", "WORKER_MEMORY=8192m", "PARALLELISM=40")
    changed = rendering.chart_values(of)
    assert changed["workers"]["celery"]["replicas"] == 5
    assert changed["workers"]["celery"]["resources"]["limits"] == {"memory": "8192Mi"}
    assert {"name": "AIRFLOW__CORE__PARALLELISM", "value": "40"} in changed["scheduler"]["env"]


# ---- what the chart makes of them


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_renders_pods_without_tokens_root_or_writable_images(tmp_path, variant):
    pods = {
        document["metadata"]["name"]: pod
        for document in chart_manifests(tmp_path, VARIANTS[variant])
        if (pod := pod_of(document))
    }
    assert len(pods) == len(COMPONENTS)
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            if container["name"].startswith("git-sync"):
                continue
            assert container["securityContext"]["readOnlyRootFilesystem"], (name, container["name"])
            assert container["resources"]["limits"]["memory"], (name, container["name"])
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in pod["volumes"]}, (name, container["name"])
            assert len({volume["name"] for volume in pod["volumes"]}) == len(pod["volumes"]), name
            targets = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(targets) == len(set(targets)), (name, container["name"])


def test_the_chart_makes_no_secret_of_its_own(tmp_path):
    rendered = chart_manifests(tmp_path, VARIANTS["replicated data"])
    assert [document["metadata"]["name"] for document in rendered if document["kind"] == "Secret"] == []


def test_the_chart_gives_pods_the_labels_of_their_networks(tmp_path, cluster):
    for document in chart_manifests(tmp_path, VARIANTS["replicated data"]):
        if pod_of(document):
            component = document["metadata"]["labels"]["component"].replace("run-airflow-migrations", "migrate")
            labels = document["spec"]["template"]["metadata"]["labels"]
            expected = translation.network_labels(cluster.service(component))
            assert {key: value for key, value in labels.items() if key in expected} == expected, component
