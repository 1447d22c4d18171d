"""DAGs from Git and logs in S3: what pods get, and which Secrets they need."""

from __future__ import annotations

import json

import pytest

from ops.kubernetes import remote_parts, translation
from ops.kubernetes.schema_check import VARIANTS
from tests.unit.kubernetes.rendered import cluster_with

GIT_AND_S3, BY_SSH = (cluster_with(*VARIANTS[name]) for name in ("Git and S3", "Git by SSH"))


@pytest.mark.parametrize("component", remote_parts.LOG_CLIENTS)
def test_a_reader_of_logs_finds_its_log_in_and_its_authority(component):
    settings = GIT_AND_S3.settings
    environment = remote_parts.log_environment(component, settings)
    connection = environment[f"AIRFLOW_CONN_{environment['AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID'].upper()}"]
    extra = json.loads(connection)["extra"]
    (volume,) = remote_parts.log_volumes(component, settings)
    (mount,) = remote_parts.log_mounts(component, settings)
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert files == {environment["AWS_SHARED_CREDENTIALS_FILE"], extra["verify"]}
    assert extra["endpoint_url"] == "https://s3.example.com:9000"


def test_the_connection_is_what_the_provider_reads(monkeypatch):
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
    from airflow.sdk import Connection

    settings = GIT_AND_S3.settings
    text = remote_parts.log_environment("worker", settings)[f"AIRFLOW_CONN_{remote_parts.CONNECTION.upper()}"]
    wrapped = AwsConnectionWrapper(Connection.from_json(text, conn_id=remote_parts.CONNECTION))
    assert wrapped.profile_name == remote_parts.PROFILE
    assert wrapped.verify == f"{remote_parts.FOLDER}/{remote_parts.AUTHORITY}"
    assert wrapped.endpoint_url == settings["KUBERNETES_LOGS_ENDPOINT"]


def test_schedulers_and_dag_processors_have_no_log_in_of_the_logs():
    for component in ("scheduler", "dag-processor", "execution-api", "maintenance"):
        assert remote_parts.log_environment(component, GIT_AND_S3.settings) == {}
        assert remote_parts.log_volumes(component, GIT_AND_S3.settings) == []


def test_without_a_secret_the_pods_have_their_own_identity():
    environment = remote_parts.log_environment("worker", BY_SSH.settings)
    assert "AWS_SHARED_CREDENTIALS_FILE" not in environment
    assert remote_parts.log_volumes("worker", BY_SSH.settings) == []


def test_each_secret_has_the_keys_that_the_chart_and_the_pods_read():
    log_in = {"GITSYNC_USERNAME", "GITSYNC_PASSWORD", "GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD"}
    keys = remote_parts.secret_keys(GIT_AND_S3.settings)
    assert {name: set(listed) for name, listed in keys.items()} == {
        "git": log_in,
        "logs": {"credentials"},
        "logs-ca": {"ca.crt"},
    }
    assert remote_parts.secret_keys(BY_SSH.settings) == {"git": ("gitSshKey",)}


@pytest.mark.parametrize(
    ("repository", "port"),
    [
        ("https://git.example.com/a.git", 443),
        ("https://git.example.com:8443/a.git", 8443),
        ("git@git.example.com:team/a.git", 22),
        ("ssh://git@git.example.com/a.git", 22),
        ("ssh://git@git.example.com:2222/a.git", 2222),
    ],
)
def test_the_port_of_a_repository_is_that_of_its_address(repository, port):
    assert remote_parts.REPOSITORY.accepts(repository)
    assert remote_parts.git_port(repository) == port
    assert remote_parts.is_ssh(repository) == (not repository.startswith("https"))


def test_with_logs_in_s3_no_pod_shares_a_volume_of_logs():
    mounts = [{"name": translation.claim(translation.LOGS)}, {"name": translation.claim(translation.ARTIFACTS)}]
    logs, artifacts = translation.shared_volumes(mounts, GIT_AND_S3.settings)
    assert "emptyDir" in logs
    assert "persistentVolumeClaim" in artifacts
