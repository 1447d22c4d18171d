"""A scheduler keeps its connection to the results of its tasks, and gets another when it is lost."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from sqlalchemy import event

from airflow_ha.patches import keep_result_connection as result_connection

upstream = result_connection._get_engine


@pytest.fixture
def connections(request, tmp_path, monkeypatch):
    """A scheduler's results; and each connection that was made for them."""
    manager = result_connection.SessionManager
    monkeypatch.setattr(manager, "get_engine", getattr(request, "param", result_connection.get_engine))
    app = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results")
    made: list[object] = []

    def made_one(connection, _record):
        made.append(connection)

    event.listen(sqlalchemy.pool.Pool, "connect", made_one)
    yield app, made
    event.remove(sqlalchemy.pool.Pool, "connect", made_one)


def ask(app: Celery) -> str:
    return app.backend.get_task_meta("no such task", cache=False)["status"]


def test_one_connection_serves_every_question(connections):
    app, made = connections
    assert [ask(app) for _ in range(5)] == ["PENDING"] * 5
    assert len(made) == 1


def test_a_connection_that_was_lost_is_replaced(connections):
    app, made = connections
    ask(app)
    made[0].close()
    assert ask(app) == "PENDING"
    assert len(made) == 2


@pytest.mark.parametrize("connections", [upstream], indirect=True)
def test_upstream_connects_for_each_question(connections):
    """When this fails, celery has fixed it: delete airflow_ha.patches.keep_result_connection and this file."""
    app, made = connections
    for _ in range(5):
        ask(app)
    assert len(made) >= 5
