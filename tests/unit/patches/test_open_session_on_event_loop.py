"""A call's session is created on the event loop, and ended in a thread only if it was used."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import StaticPool, create_engine, text
from sqlalchemy.orm import Session

from tests.unit.patches.loading import applied


@pytest.fixture
def patched():
    """The patch, applied for one test."""
    with applied("open_session_on_event_loop"):
        yield


@pytest.fixture
def server(monkeypatch):
    """An app with upstream's sessions of an in-memory database, and a record of the threads."""
    from airflow import settings
    from airflow.api_fastapi.common.db.common import _get_session

    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.execute(text("create table kept (word text)"))
    record = SimpleNamespace(created=[], ended=[], loop=None, threads=0)

    class RecordingSession(Session):
        def __init__(self) -> None:
            super().__init__(engine)
            record.created.append(threading.get_ident())

        def close(self) -> None:
            record.ended.append(threading.get_ident())
            super().close()

    monkeypatch.setattr(settings, "NonScopedSession", RecordingSession)
    run_sync = anyio.to_thread.run_sync

    async def count_call(*args, **kwargs):
        record.threads += 1
        return await run_sync(*args, **kwargs)

    monkeypatch.setattr(anyio.to_thread, "run_sync", count_call)
    app, session_dependency = FastAPI(), Depends(_get_session, scope="function")  # upstream's SessionDep

    @app.get("/unused")
    async def unused(session: Session = session_dependency):
        record.loop = threading.get_ident()

    @app.get("/store/{word}")
    def store(word: str, session: Session = session_dependency):
        session.execute(text("insert into kept values (:word)"), {"word": word})
        if word == "wrong":
            raise KeyError(word)

    def stored_words() -> list[str]:
        with engine.connect() as connection:
            return list(connection.scalars(text("select word from kept")))

    with TestClient(app, raise_server_exceptions=False) as client:  # one loop for all calls
        yield SimpleNamespace(client=client, record=record, stored_words=stored_words)


@pytest.mark.usefixtures("patched")
def test_unused_session_stays_on_the_event_loop(server):
    assert server.client.get("/unused").status_code == 200
    assert server.record.created == server.record.ended == [server.record.loop]
    assert server.record.threads == 0


def test_upstream_uses_a_thread_twice(server):
    """If this fails, FastAPI or Airflow is fixed: delete open_session_on_event_loop and this file."""
    assert server.client.get("/unused").status_code == 200
    assert server.record.loop not in (server.record.created + server.record.ended)
    assert server.record.threads == 2


@pytest.mark.usefixtures("patched")
def test_used_session_is_ended_in_a_thread(server):
    assert server.client.get("/store/right").status_code == 200
    assert server.client.get("/store/wrong").status_code == 500
    assert server.stored_words() == ["right"]
    assert server.client.get("/unused").status_code == 200
    *used, unused = server.record.ended
    assert len(used) == 2
    assert server.record.loop == unused
    assert unused not in used


@pytest.mark.usefixtures("patched")
def test_other_generators_are_left_to_fastapi():
    app = FastAPI()

    def word():
        yield threading.get_ident()

    @app.get("/")
    async def runs_elsewhere(thread: int = Depends(word)):
        return thread != threading.get_ident()

    assert TestClient(app).get("/").json() is True
