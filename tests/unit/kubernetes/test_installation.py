"""`kubernetes install` applies its parts in order, and `status` counts the pods that are ready."""

from __future__ import annotations

import io
import tarfile

import pytest

from ops.kubernetes import chart, cluster_settings, installation
from ops.kubernetes.schema_check import MINIMUM, VARIANTS
from ops.project import ROOT, Project
from tests.unit.kubernetes.programs_of_cluster import calls, install_programs


@pytest.fixture
def project(tmp_path, monkeypatch):
    install_programs(tmp_path, {})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(chart, "archive", lambda: tmp_path / "airflow.tgz")
    monkeypatch.setattr(installation, "verify", lambda *_: None)
    monkeypatch.setattr(installation, "airflow", lambda *_: io.StringIO())  # a context manager that does nothing
    return Project(ROOT, tmp_path / "state")


def install(project, *given):
    settings = cluster_settings.read(project, [*MINIMUM, *given])
    installation.install(project, settings, cluster_settings.chosen(project, given), [], lambda _: None)


def steps(folder):
    """Return the changes of the cluster, in order, in one word each."""
    found = []
    for program, *arguments, text in calls(folder):
        words = " ".join(arguments)
        if program == "helm":
            found.append("chart")
        elif "--kustomize" in words:
            found.append(words.rpartition("/")[2])
        elif "rollout" in arguments:
            found.append(arguments[arguments.index("status") + 1])
        elif '"kind": "Secret"' in text:
            found.append("secrets")
        elif "exec" in arguments:
            found.append("DAGs")
    return found


def test_the_data_tier_is_ready_before_the_chart_and_apis_before_workers(project, tmp_path):
    install(project, *VARIANTS["replicated data"])
    found = steps(tmp_path)
    order = ("secrets", "data", "statefulset/patroni", "core", "DAGs", "chart", "deployment/execution-api")
    assert [found.index(step) for step in order] == sorted(found.index(step) for step in order)
    rollouts = [step.rpartition("-")[2] for step in found if step.startswith("deployment/airflow-")]
    assert rollouts[:3] == ["server", "scheduler", "worker"]
    assert "monitoring" not in found, "the cluster has no Prometheus Operator"


def test_external_data_gets_no_stateful_set(project, tmp_path):
    for name in ("postgres_airflow_password", "postgres_celery_password", "redis_password"):
        (project.secrets / name).parent.mkdir(parents=True, exist_ok=True)
        (project.secrets / name).write_text("of-the-operator-0\n")
    install(project, *VARIANTS["Git and S3"])
    assert not {"data", "DAGs"} & set(steps(tmp_path))


def test_settings_of_an_installation_are_kept(project):
    install(project, *VARIANTS["single data"], "WORKER_REPLICAS=3")
    assert cluster_settings.read(project, MINIMUM)["WORKER_REPLICAS"] == "3"


def test_an_archive_of_dags_has_the_files_and_no_compiled_ones(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_text("")
    (tmp_path / "a.py").write_text("a")
    with tarfile.open(fileobj=io.BytesIO(installation.packed(tmp_path, {"b.py": "b"}))) as archive:
        assert sorted(archive.getnames()) == ["a.py", "b.py"]


def pod(component, *, ready, stopping=False):
    return {
        "metadata": {"name": f"{component}-1", "labels": {"component": component}}
        | ({"deletionTimestamp": "now"} if stopping else {}),
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def test_a_pod_that_stops_or_starts_is_not_counted_as_ready(project, tmp_path):
    workload = {"spec": {"replicas": 3, "template": {"metadata": {"labels": {"component": "worker"}}}}}
    pods = [pod("worker", ready=True), pod("worker", ready=False), pod("worker", ready=True, stopping=True)]
    install_programs(
        tmp_path, {"kubectl pods": {"items": pods}, "kubectl deployments,statefulsets": {"items": [workload]}}
    )
    (component,) = installation.components(cluster_settings.read(project, MINIMUM))
    assert (component.ready, component.expected, len(component.pods)) == (1, 3, 3)
