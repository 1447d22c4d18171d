"""Settings of a Kubernetes cluster are checked before anything is changed."""

from __future__ import annotations

import pytest

from ops.errors import StackError
from ops.kubernetes import cluster_settings
from ops.kubernetes.schema_check import IMAGE
from ops.project import ROOT, Project
from tests.unit.kubernetes.rendered import PROJECT

README = (ROOT / "ops/kubernetes/README.md").read_text()


def test_the_defaults_need_the_image_only():
    assert cluster_settings.read(PROJECT, [IMAGE])["KUBERNETES_NAMESPACE"] == "airflow"
    with pytest.raises(StackError):
        cluster_settings.read(PROJECT)


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
        cluster_settings.read(PROJECT, [IMAGE, given])


def test_settings_are_kept_beside_those_of_docker(tmp_path):
    default = Project(ROOT, ROOT / "compose")
    assert cluster_settings.kubernetes_project(default).state == ROOT / "compose/kubernetes"
    named = Project(ROOT, tmp_path)
    assert cluster_settings.kubernetes_project(named) == named


def test_the_readme_lists_every_setting_of_kubernetes():
    assert [name for name in cluster_settings.OWN if f"`{name}`" not in README] == []
