"""A task's result is written with one statement, and read as upstream's."""

from __future__ import annotations

import pytest
import sqlalchemy
from celery import Celery
from sqlalchemy import event

from tests.unit.patches.loading import applied


@pytest.fixture
def ours():
    """The patch, for one test."""
    with applied("upsert_task_result"):
        yield


@pytest.fixture
def results(tmp_path):
    """A worker's results, with their table; and the statements that are sent for them."""
    backend = Celery(set_as_current=False, backend=f"db+sqlite:///{tmp_path}/results").backend
    backend.get_task_meta("no such task", cache=False)
    sent: list[str] = []

    def kept(_connection, _cursor, statement, *_):
        sent.append(statement.split()[0])

    event.listen(sqlalchemy.Engine, "before_cursor_execute", kept)
    yield backend, sent
    event.remove(sqlalchemy.Engine, "before_cursor_execute", kept)


def read(backend, task: str) -> dict[str, object]:
    return backend.get_task_meta(task, cache=False)


@pytest.mark.usefixtures("ours")
def test_it_takes_one_statement(results):
    backend, sent = results
    backend.mark_as_done("one", {"any": ["thing", None]})
    assert sent == ["INSERT"]


def test_upstream_still_takes_three(results):
    """When this fails, celery has fixed it: delete upsert_task_result and this file."""
    backend, sent = results
    backend.mark_as_done("one", None)
    assert sent == ["SELECT", "INSERT", "UPDATE"]


def written(backend) -> list[dict[str, object]]:
    """A result, a failure, and a result in place of another, as they are read; but for when they were written."""
    backend.mark_as_done("one", {"any": ["thing", None]})
    backend.mark_as_failure("two", KeyError("none"), traceback="its traceback")
    backend.store_result("three", None, "STARTED")
    backend.mark_as_done("three", 3)
    metas = [read(backend, task) for task in ("one", "two", "three")]
    for meta in metas:
        assert meta.pop("date_done")
        meta["result"] = repr(meta["result"])
    return metas


def test_what_is_read_is_as_upstreams(results, request):
    backend, _ = results
    upstreams = written(backend)
    with backend.ResultSession() as session:
        session.execute(sqlalchemy.delete(backend.task_cls))
        session.commit()
    assert read(backend, "one")["status"] == "PENDING"
    request.getfixturevalue("ours")
    assert written(backend) == upstreams
    assert [meta["status"] for meta in upstreams] == ["SUCCESS", "FAILURE", "SUCCESS"]


@pytest.mark.usefixtures("ours")
def test_it_is_tried_again_when_the_database_was_away(results, monkeypatch):
    backend, sent = results
    sessions = iter([sqlalchemy.exc.OperationalError("insert", {}, OSError("away"))])
    session = backend.ResultSession

    def away_once():
        if error := next(sessions, None):
            raise error
        return session()

    monkeypatch.setattr(backend, "ResultSession", away_once)
    backend.mark_as_done("one", 1)
    assert sent == ["INSERT"]
    assert read(backend, "one")["result"] == 1
