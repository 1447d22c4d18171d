"""A connection is waited for while the database is away, and only for as long as that may help."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import Engine

from airflow_ha.patches import db_connect_retry as lost_primary


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """As in a scheduler, and quicker."""
    monkeypatch.setattr(lost_primary, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(lost_primary, "PATIENCE_SECONDS", 0.2)
    lost_primary.apply()
    yield
    event.remove(Engine, "do_connect", lost_primary.connect)


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A database that refuses the connections that a test says; its engine, and what it was asked."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database")
    refusals: list[str] = []
    real = engine.dialect.connect

    def connect(*arguments, **more):
        if refusals:
            raise sqlite3.OperationalError(refusals.pop(0))
        return real(*arguments, **more)

    monkeypatch.setattr(engine.dialect, "connect", connect)
    return engine, refusals


def test_a_process_waits_until_there_is_a_primary_again(database):
    engine, refusals = database
    refusals += ["Connection refused", "session is read-only", "the database system is starting up"]
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    assert not refusals


def test_without_the_work_round_the_first_refusal_is_an_error(database):
    engine, refusals = database
    refusals += ["Connection refused"]
    event.remove(Engine, "do_connect", lost_primary.connect)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        engine.connect()
    lost_primary.apply()


def test_patience_ends(database):
    engine, refusals = database
    refusals += ["Connection refused"] * 1000
    with pytest.raises(sqlalchemy.exc.OperationalError, match="refused"):
        engine.connect()


@pytest.mark.parametrize(
    "said",
    ['password authentication failed for user "airflow"', 'database "airflow" does not exist', "no pg_hba.conf entry"],
)
def test_what_no_waiting_mends_is_an_error_at_once(database, said):
    engine, refusals = database
    refusals += [said, "Connection refused"]
    with pytest.raises(sqlalchemy.exc.OperationalError, match=said[:8]):
        engine.connect()
    assert refusals == ["Connection refused"]
