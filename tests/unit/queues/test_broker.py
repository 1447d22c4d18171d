"""A scheduler's connection to the broker is persistent, and replaced after an error."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from airflow_ha.queues.broker import Broker


@pytest.fixture
def connections(monkeypatch):
    """All opened connections, and whether each was closed."""
    from airflow.providers.celery.executors import celery_executor_utils

    made: list[SimpleNamespace] = []

    def connection():
        number = len(made)
        channel = SimpleNamespace(conn_or_acquire=lambda: contextlib.nullcontext(number))
        made.append(SimpleNamespace(channel=lambda: channel, closed=False))
        made[-1].close = lambda: setattr(made[number], "closed", True)
        return made[-1]

    monkeypatch.setattr(celery_executor_utils, "app", SimpleNamespace(connection_for_write=connection))
    return made


def refuse(client):
    raise ConnectionError(client)


def test_one_connection_serves_every_call(connections):
    broker = Broker()
    assert [broker.call(lambda client: client) for _ in range(3)] == [0, 0, 0]


def test_failed_connection_is_replaced(connections):
    broker = Broker()
    with pytest.raises(ConnectionError):
        broker.call(refuse)
    assert connections[0].closed
    assert broker.call(lambda client: client) == 1
