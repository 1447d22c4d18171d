"""The tasks that have or wait for a slot are counted by one condition, on Docker and by KEDA."""

from __future__ import annotations

import json
import sys

import psycopg2
import pytest

from airflow_ha import secret_masking
from airflow_ha.queues import demand


class Database:
    """A fake connection and cursor that returns one row."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.is_closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def cursor(self):
        return self

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def fetchone(self):
        return 12, 5

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def url(monkeypatch, tmp_path) -> str:
    (tmp_path / "sql_alchemy_conn").write_text("postgresql+psycopg2://a@/airflow?host=one:5432&host=two:5432\n")
    monkeypatch.setattr(secret_masking, "SECRETS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demand", "default,high"])
    return "postgresql://a@one:5432,two:5432/airflow?"


def test_both_statements_count_the_same_rows():
    condition = demand.rows("default,high.2")
    assert demand.count_query("default,high.2").endswith(condition)
    assert demand.workers_query("default,high.2", 8).endswith(condition)
    assert "queue IN ('default', 'high.2')" in condition


@pytest.mark.parametrize("queues", ["", "default,", "a b", "a'); DROP TABLE job; --", "é"])
def test_a_text_that_is_no_list_of_queues_is_refused(queues):
    with pytest.raises(ValueError, match="not a list of queues"):
        demand.rows(queues)


def test_the_numbers_are_printed_for_every_host_of_the_database(monkeypatch, url, capsys):
    database = Database()
    urls = []
    monkeypatch.setattr(psycopg2, "connect", lambda given, **_: urls.append(given) or database)
    demand.main()
    assert json.loads(capsys.readouterr().out) == {"queued": 12, "running": 5}
    assert urls == [url]
    assert database.statements == [demand.count_query("default,high")]
    assert database.is_closed


@pytest.mark.usefixtures("url")
def test_a_database_that_does_not_answer_is_an_error_of_one_line(monkeypatch):
    def refuse(*_, **__):
        raise psycopg2.OperationalError("connection to server failed\n\tIs it running?")

    monkeypatch.setattr(psycopg2, "connect", refuse)
    with pytest.raises(SystemExit) as ended:
        demand.main()
    assert ended.value.code == "connection to server failed Is it running?"
