"""New connections try the node first that accepted the last connection."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace

import pytest
import sqlalchemy

from airflow_ha.patches import engines
from tests.unit.patches.loading import applied


class Connection(sqlite3.Connection):
    """A connection with the name of its node, as psycopg2 and psycopg provide it."""

    info: SimpleNamespace


class Nodes:
    """A URL of several nodes, whose driver connects to the first node that is not frozen."""

    def __init__(self, monkeypatch, **connect_args):
        self.engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.NullPool, connect_args=connect_args)
        engines.metadata_engine_created(self.engine)
        self.frozen: set[str] = set()
        self.tried: list[dict[str, str]] = []
        monkeypatch.setattr(self.engine.dialect, "connect", self._connect)

    def _connect(self, *_, host, port, **_more):
        self.tried.append({"host": host, "port": port})
        connection = sqlite3.connect(":memory:", factory=Connection)
        node_name = next(name for name in host.split(",") if name not in self.frozen)
        connection.info = SimpleNamespace(host=node_name)
        return connection

    def connect(self) -> dict[str, str]:
        """Connect, and return the hosts and ports that the driver received."""
        with self.engine.connect():
            return self.tried[-1]


@pytest.fixture(autouse=True)
def last_host(monkeypatch):
    monkeypatch.setattr(engines, "_METADATA", [])
    monkeypatch.setattr(engines, "_RESULTS", [])
    with applied("prefer_last_good_host") as module:
        yield module


def test_frozen_node_is_tried_first_only_once(monkeypatch):
    nodes = Nodes(monkeypatch, host="patroni-1,patroni-2,patroni-3", port="1,2,3")
    assert nodes.connect()["host"] == "patroni-1,patroni-2,patroni-3"
    nodes.frozen.add("patroni-1")
    assert nodes.connect()["host"] == "patroni-1,patroni-2,patroni-3"
    assert nodes.connect() == {"host": "patroni-2,patroni-1,patroni-3", "port": "2,1,3"}


def test_last_good_node_comes_first_in_any_url_order(monkeypatch):
    nodes = Nodes(monkeypatch, host="patroni-1,patroni-2", port="5432")
    for frozen, order in (("patroni-1", "patroni-2,patroni-1"), ("patroni-2", "patroni-1,patroni-2")):
        nodes.frozen = {frozen}
        nodes.connect()
        nodes.frozen = set()
        assert nodes.connect() == {"host": order, "port": "5432"}


def test_other_database_keeps_its_node_order(monkeypatch):
    nodes = Nodes(monkeypatch, host="patroni-1,patroni-2", port="1,2")
    nodes.frozen.add("patroni-1")
    nodes.connect()
    assert Nodes(monkeypatch, host="elsewhere", port="1").connect() == {"host": "elsewhere", "port": "1"}


def test_connection_without_a_node_changes_nothing(monkeypatch):
    nodes = Nodes(monkeypatch, host="patroni-1,patroni-2", port="1,2")
    nodes.frozen.add("patroni-1")
    nodes.connect()
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    assert nodes.connect()["host"] == "patroni-2,patroni-1"
