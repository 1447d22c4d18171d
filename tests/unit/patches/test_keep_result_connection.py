"""A scheduler keeps its connection to the result backend, and replaces it when it is lost."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from sqlalchemy import event

from airflow_ha.patches import keep_result_connection as result_connection

upstream = result_connection._get_engine


@pytest.fixture
def connections(request, tmp_path, monkeypatch):
    """A scheduler's result backend, and the connections that it creates."""
    manager = result_connection.SessionManager
    monkeypatch.setattr(manager, "get_engine", getattr(request, "param", result_connection.get_engine))
    app = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results")
    created: list[object] = []

    def record(connection, _record):
        created.append(connection)

    event.listen(sqlalchemy.pool.Pool, "connect", record)
    yield app, created
    event.remove(sqlalchemy.pool.Pool, "connect", record)


def query_status(app: Celery) -> str:
    return app.backend.get_task_meta("no such task", cache=False)["status"]


def test_one_connection_serves_every_query(connections):
    app, created = connections
    assert [query_status(app) for _ in range(5)] == ["PENDING"] * 5
    assert len(created) == 1


def test_lost_connection_is_replaced(connections):
    app, created = connections
    query_status(app)
    created[0].close()
    assert query_status(app) == "PENDING"
    assert len(created) == 2


@pytest.mark.parametrize("connections", [upstream], indirect=True)
def test_upstream_connects_for_each_query(connections):
    """If this fails, celery is fixed: delete airflow_ha.patches.keep_result_connection and this file."""
    app, created = connections
    for _ in range(5):
        query_status(app)
    assert len(created) >= 5
