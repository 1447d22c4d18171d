"""The connection patches are attached to each engine of the result backend before its first connection."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from celery.backends.database import session

from airflow_ha.patches import engines
from tests.unit.patches.loading import applied


@pytest.fixture
def reported_engines(monkeypatch):
    """The reported engines of the result backend."""
    reported: list[sqlalchemy.Engine] = []
    monkeypatch.setattr(engines, "_RESULTS", [reported.append])
    return reported


@pytest.mark.parametrize("forked", [False, True])
def test_each_result_engine_is_reported(reported_engines, tmp_path, monkeypatch, forked):
    monkeypatch.setattr(session.SessionManager, "forked", forked, raising=False)
    with applied("attach_to_result_engine", session):
        backend = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results").backend
        assert backend.get_task_meta("no such task", cache=False)["status"] == "PENDING"
    assert reported_engines
    assert all(engine.url.database == f"{tmp_path}/results" for engine in reported_engines)


def test_engine_of_a_dag_file_is_not_reported(reported_engines):
    with applied("attach_to_result_engine", session):
        sqlalchemy.create_engine("sqlite://").connect().close()
    assert reported_engines == []
