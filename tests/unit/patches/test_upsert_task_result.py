"""A task's result is written with one statement and read as upstream's."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from sqlalchemy import event

from tests.unit.patches.loading import applied


@pytest.fixture
def patched():
    """The patch, applied for one test."""
    with applied("upsert_task_result"):
        yield


@pytest.fixture
def results(tmp_path):
    """A result backend with its table, and the statements that it sends."""
    backend = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results").backend
    backend.get_task_meta("no such task", cache=False)
    sent: list[str] = []

    def record(_connection, _cursor, statement, *_):
        sent.append(statement.split()[0])

    event.listen(sqlalchemy.Engine, "before_cursor_execute", record)
    yield backend, sent
    event.remove(sqlalchemy.Engine, "before_cursor_execute", record)


def read(backend, task: str) -> dict[str, object]:
    return backend.get_task_meta(task, cache=False)


@pytest.mark.usefixtures("patched")
def test_result_is_written_with_one_statement(results):
    backend, sent = results
    backend.mark_as_done("one", {"any": ["thing", None]})
    assert sent == ["INSERT"]


def test_upstream_needs_three_statements(results):
    """If this fails, celery is fixed: delete upsert_task_result and this file."""
    backend, sent = results
    backend.mark_as_done("one", None)
    assert sent == ["SELECT", "INSERT", "UPDATE"]


def write_and_read(backend) -> list[dict[str, object]]:
    """Write a result, a failure and an updated result; return them as read, without the time."""
    backend.mark_as_done("one", {"any": ["thing", None]})
    backend.mark_as_failure("two", KeyError("none"), traceback="its traceback")
    backend.store_result("three", None, "STARTED")
    backend.mark_as_done("three", 3)
    metas = [read(backend, task) for task in ("one", "two", "three")]
    for meta in metas:
        assert meta.pop("date_done")
        meta["result"] = repr(meta["result"])
    return metas


def test_result_is_read_as_upstream(results, request):
    backend, _ = results
    expected = write_and_read(backend)
    with backend.ResultSession() as session:
        session.execute(sqlalchemy.delete(backend.task_cls))
        session.commit()
    assert read(backend, "one")["status"] == "PENDING"
    request.getfixturevalue("patched")
    assert write_and_read(backend) == expected
    assert [meta["status"] for meta in expected] == ["SUCCESS", "FAILURE", "SUCCESS"]


@pytest.mark.usefixtures("patched")
def test_write_is_retried_after_a_database_error(results, monkeypatch):
    backend, sent = results
    errors = iter([sqlalchemy.exc.OperationalError("insert", {}, OSError("away"))])
    session = backend.ResultSession

    def fail_once():
        if error := next(errors, None):
            raise error
        return session()

    monkeypatch.setattr(backend, "ResultSession", fail_once)
    backend.mark_as_done("one", 1)
    assert sent == ["INSERT"]
    assert read(backend, "one")["result"] == 1
