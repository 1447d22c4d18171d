"""`kubernetes check` finds what would stop an installation, and changes nothing."""

from __future__ import annotations

import pytest

from ops.kubernetes import chart, cluster_checks, cluster_settings
from ops.kubernetes.schema_check import MINIMUM
from ops.project import ROOT, Project
from tests.unit.kubernetes.programs_of_cluster import READY, calls, install_programs

CLASSES = ("KUBERNETES_STORAGE_CLASS=local", "KUBERNETES_SHARED_STORAGE_CLASS=shared", "COMPOSE_PROFILES=data")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return the state of each check on a cluster with other answers."""

    def run(*given, **answers):
        install_programs(tmp_path, {words.replace("_", " "): answer for words, answer in answers.items()})
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setattr(chart, "archive", lambda: tmp_path / "airflow.tgz")
        project = Project(ROOT, tmp_path / "state")
        settings = cluster_settings.read(project, [*MINIMUM, *(given or CLASSES)])
        return {check.subject: check.state for check in cluster_checks.run(project, settings)}

    return run


def test_a_suitable_cluster_passes_every_check(results):
    assert set(results().values()) <= {"ok", "note"}


def test_an_old_cluster_fails(results):
    assert results(kubectl_version="Server Version: v1.28.0")["cluster"] == "failed"


def test_a_cluster_that_does_not_answer_fails_without_further_checks(results):
    found = results(kubectl_version=None)
    assert "failed" in found.values()
    assert "nodes" not in found


def test_a_missing_storage_class_fails(results):
    found = results("KUBERNETES_SHARED_STORAGE_CLASS=nowhere", "COMPOSE_PROFILES=data")
    assert found["shared storage class"] == "failed"
    assert found["storage class"] == "failed", "the cluster has no default class"


def test_missing_rights_fail(results):
    assert results(kubectl_auth=None)["rights"] == "failed"


def test_a_single_node_is_noted(results):
    assert results(kubectl_nodes={"items": [READY]})["nodes"] == "note"


def test_an_old_helm_fails(results):
    assert results(helm_version="v3.12.0")["helm"] == "failed"


def test_no_check_changes_the_cluster(results, tmp_path):
    results()
    changing = {"apply", "create", "delete", "patch", "replace", "install", "upgrade"}
    assert not [call for call in calls(tmp_path) if call[0] == "helm" and changing & set(call)]
    assert not [call for call in calls(tmp_path) if call[2] in changing]
