"""Settings of a Kubernetes cluster are checked before anything is changed."""

from __future__ import annotations

import pytest

from ops.errors import StackError
from ops.kubernetes import cluster_settings
from ops.kubernetes.schema_check import MINIMUM
from ops.project import ROOT, Project
from tests.unit.kubernetes.rendered import PROJECT

README = (ROOT / "ops/kubernetes/README.md").read_text()


REMOTE = (MINIMUM[0], "KUBERNETES_GIT_REPOSITORY=https://git.example.com/dags.git", "KUBERNETES_LOGS_FOLDER=s3://logs")
"""What the defaults need: DAGs come from Git, and task logs go to S3."""
BY_SSH = "KUBERNETES_GIT_REPOSITORY=git@git.example.com:dags.git"


def test_the_defaults_need_an_image_a_repository_and_a_bucket():
    settings = cluster_settings.read(PROJECT, REMOTE)
    assert (settings["KUBERNETES_DAGS"], settings["KUBERNETES_LOGS"]) == ("git", "s3")
    for left_out in REMOTE:
        with pytest.raises(StackError):
            cluster_settings.read(PROJECT, [each for each in REMOTE if each != left_out])


@pytest.mark.parametrize(
    "given",
    [
        ("KUBERNETES_GIT_REPOSITORY=https://ann:password@git.example.com/dags.git",),
        ("KUBERNETES_GIT_REPOSITORY=http://git.example.com/dags.git",),
        ("KUBERNETES_GIT_REPOSITORY=../dags",),
        ("KUBERNETES_GIT_FOLDER=/dags",),
        ("KUBERNETES_GIT_REF=",),
        (BY_SSH,),
        (BY_SSH, "KUBERNETES_GIT_SECRET=git"),
        ("KUBERNETES_LOGS_FOLDER=/logs",),
        ("KUBERNETES_LOGS_FOLDER=gs://logs",),
        ("KUBERNETES_LOGS_ENDPOINT=s3.example.com",),
        ("KUBERNETES_LOGS_ENDPOINT=http://s3.example.com", "KUBERNETES_LOGS_CA_SECRET=ca"),
        ("KUBERNETES_LOGS=gcs",),
    ],
)
def test_a_setting_of_git_or_s3_that_cannot_work_is_refused(given):
    with pytest.raises(StackError):
        cluster_settings.read(PROJECT, [*REMOTE, *given])


@pytest.mark.parametrize(
    "given",
    [
        "KUBERNETES_NAMESPACE=Not_A_Name",
        "KUBERNETES_POSTGRES_SIZE=20",
        "KUBERNETES_DAGS=s3",
        "KUBERNETES_NAMESPCE=airflow",
        "WORKER_CONCURRENCY=none",
        "COMPOSE_PROFILES=data,backup",
        "COMPOSE_PROFILES=data-ha",
        "AIRFLOW_IMAGE=registry.example.com/airflow",
        "no assignment",
    ],
)
def test_a_setting_that_is_not_valid_is_refused(given):
    with pytest.raises(StackError):
        cluster_settings.read(PROJECT, [*MINIMUM, given])


def test_settings_are_kept_beside_those_of_docker(tmp_path):
    default = Project(ROOT, ROOT / "compose")
    assert cluster_settings.kubernetes_project(default).state == ROOT / "compose/kubernetes"
    named = Project(ROOT, tmp_path)
    assert cluster_settings.kubernetes_project(named) == named


def test_the_readme_lists_every_setting_of_kubernetes():
    assert [name for name in cluster_settings.OWN if f"`{name}`" not in README] == []
