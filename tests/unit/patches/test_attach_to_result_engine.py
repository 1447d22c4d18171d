"""What patches attach to the engines of Celery's results is on each of them before its first connection."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from celery.backends.database import session

from airflow_ha.patches import engines
from tests.unit.patches.loading import applied


@pytest.fixture
def created(monkeypatch):
    """The engines of Celery's results that were reported."""
    found: list[sqlalchemy.Engine] = []
    monkeypatch.setattr(engines, "_RESULTS", [found.append])
    return found


@pytest.mark.parametrize("forked", [False, True])
def test_each_engine_of_the_results_is_reported(created, tmp_path, monkeypatch, forked):
    monkeypatch.setattr(session.SessionManager, "forked", forked, raising=False)
    with applied("attach_to_result_engine", session):
        backend = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results").backend
        assert backend.get_task_meta("no such task", cache=False)["status"] == "PENDING"
    assert created
    assert all(engine.url.database == f"{tmp_path}/results" for engine in created)


def test_an_engine_of_a_dag_file_is_not_reported(created):
    with applied("attach_to_result_engine", session):
        sqlalchemy.create_engine("sqlite://").connect().close()
    assert created == []
