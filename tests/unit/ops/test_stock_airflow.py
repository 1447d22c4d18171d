"""The stock Airflow runs beside the stack under its own name, and is removed with its data."""

from __future__ import annotations

import stat

import pytest

from ops import stock_airflow as module
from ops.errors import StackError
from ops.project import ROOT, Project
from ops.stock_airflow import Stock, single_worker, stock, stock_settings

SETTINGS = {"COMPOSE_PROJECT_NAME": "x", "AIRFLOW_IMAGE": "a:1", "POSTGRES_IMAGE": "p:1", "REDIS_IMAGE": "r:1"}


@pytest.fixture
def log(monkeypatch):
    """Compose commands and API requests, in order; nothing runs, and the REST API knows every DAG."""
    calls: list[tuple] = []

    class Api:
        def __init__(self, url, user, password, report):
            calls.append(("log-in", url, user))

        def has_dag(self, dag_id):
            calls.append(("has", dag_id))
            return True

    monkeypatch.setattr(module, "AirflowClient", Api)
    monkeypatch.setattr(module, "roll_out", lambda project, report, *options: calls.append(("up", *options)))
    monkeypatch.setattr(module, "free_port", lambda: 32771)
    monkeypatch.setattr(module.compose, "instances", lambda name: {})
    monkeypatch.setattr(module.compose, "run", lambda project, report, *arguments: calls.append(arguments))
    return calls


DOWN = ("down", "--volumes", "--remove-orphans", "--timeout=5")


def test_stock_airflow_is_removed_before_and_after_a_failure(log, tmp_path):
    project = Project(root=ROOT, state=tmp_path)
    with pytest.raises(ZeroDivisionError), stock(project, SETTINGS, print):
        raise ZeroDivisionError
    assert log == [DOWN, ("up",), ("log-in", "http://127.0.0.1:32771", "admin"), DOWN]


def test_dags_are_copied_first_and_secrets_are_private(log, tmp_path):
    dag = tmp_path / "a_dag.py"
    dag.write_text("dag")
    dag.chmod(0o600)
    with stock(Project(root=ROOT, state=tmp_path), SETTINGS, print, dags=[dag], dag_ids=["a"]) as other:
        assert ("has", "a") in log
        copied = other.dags / "a_dag.py"
        assert stat.S_IMODE(copied.stat().st_mode) == 0o644
        assert stat.S_IMODE(other.project.env_file.stat().st_mode) == 0o600
        assert other.project.compose_directory == ROOT / "compose/stock"
    assert not other.project.state.exists()


def test_single_worker_is_reverted_after_the_block(log, tmp_path):
    with stock(Project(root=ROOT, state=tmp_path), SETTINGS, print, WORKER_CONCURRENCY="4") as other:
        assert isinstance(other, Stock)
        before = other.project.env_file.read_text()
        with single_worker(8, other, print):
            lines = other.project.env_file.read_text().splitlines()
            assert [line for line in lines if line.startswith("WORKER_")] == [
                "WORKER_CONCURRENCY=8",
                "WORKER_REPLICAS=1",
            ]
        assert other.project.env_file.read_text() == before
    assert log.count(("up", "--no-deps", "airflow-worker")) == 2


def test_frozen_stock_airflow_is_thawed_before_removal(log, monkeypatch, tmp_path):
    instance = module.compose.Instance(id="abc", state="paused", health="unhealthy", created=0.0)
    monkeypatch.setattr(module.compose, "instances", lambda name: {"postgres": [instance]})
    monkeypatch.setattr(module.compose, "docker", lambda *arguments: log.append(arguments))
    module.remove(Project(root=ROOT, state=tmp_path), "x-stock", print)
    assert log == [("unpause", "abc"), DOWN]


def test_unknown_override_is_refused(tmp_path):
    with pytest.raises(StackError, match="WORKERS"):
        stock_settings(SETTINGS, tmp_path, {"WORKERS": "3"})


def test_missing_image_of_the_stack_is_refused(tmp_path):
    with pytest.raises(StackError, match="REDIS_IMAGE"):
        stock_settings(SETTINGS | {"REDIS_IMAGE": ""}, tmp_path, {})
