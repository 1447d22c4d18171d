"""A call's session is made on the event loop, and ended in a thread only if it was used."""

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
def ours():
    """The patch, for one test."""
    with applied("open_session_on_event_loop"):
        yield


@pytest.fixture
def server(monkeypatch):
    """An app with upstream's own sessions, of a database in memory, and where things were done."""
    from airflow import settings
    from airflow.api_fastapi.common.db.common import _get_session

    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.execute(text("create table kept (word text)"))
    seen = SimpleNamespace(made=[], ended=[], loop=None, threads=0)

    class Noted(Session):
        def __init__(self) -> None:
            super().__init__(engine)
            seen.made.append(threading.get_ident())

        def close(self) -> None:
            seen.ended.append(threading.get_ident())
            super().close()

    monkeypatch.setattr(settings, "NonScopedSession", Noted)
    run_sync = anyio.to_thread.run_sync

    async def counted(*args, **kwargs):
        seen.threads += 1
        return await run_sync(*args, **kwargs)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    app, of_the_call = FastAPI(), Depends(_get_session, scope="function")  # upstream's SessionDep

    @app.get("/unused")
    async def unused(session: Session = of_the_call):
        seen.loop = threading.get_ident()

    @app.get("/keeps/{word}")
    def keeps(word: str, session: Session = of_the_call):
        session.execute(text("insert into kept values (:word)"), {"word": word})
        if word == "wrong":
            raise KeyError(word)

    def kept() -> list[str]:
        with engine.connect() as connection:
            return list(connection.scalars(text("select word from kept")))

    with TestClient(app, raise_server_exceptions=False) as client:  # one loop for all calls
        yield SimpleNamespace(client=client, seen=seen, kept=kept)


@pytest.mark.usefixtures("ours")
def test_one_that_nobody_used_never_leaves_the_loop(server):
    assert server.client.get("/unused").status_code == 200
    assert server.seen.made == server.seen.ended == [server.seen.loop]
    assert server.seen.threads == 0


def test_upstream_still_goes_to_a_thread_for_it_twice(server):
    """When this fails, FastAPI or Airflow has fixed it: delete open_session_on_event_loop and this file."""
    assert server.client.get("/unused").status_code == 200
    assert server.seen.loop not in (server.seen.made + server.seen.ended)
    assert server.seen.threads == 2


@pytest.mark.usefixtures("ours")
def test_one_that_was_used_is_committed_in_a_thread_or_rolled_back_when_the_call_fails(server):
    assert server.client.get("/keeps/right").status_code == 200
    assert server.client.get("/keeps/wrong").status_code == 500
    assert server.kept() == ["right"]
    assert server.client.get("/unused").status_code == 200
    *used, unused = server.seen.ended
    assert len(used) == 2
    assert server.seen.loop == unused
    assert unused not in used


@pytest.mark.usefixtures("ours")
def test_other_generators_are_fastapis():
    app = FastAPI()

    def word():
        yield threading.get_ident()

    @app.get("/")
    async def where(of: int = Depends(word)):
        return of != threading.get_ident()

    assert TestClient(app).get("/").json() is True
