"""The Execution API's middlewares say what upstream's say, without a task and a stream for each call."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

from tests.unit.patches.loading import applied


@pytest.fixture
def ours():
    """Our work-round, for one test."""
    with applied("inline_api_middleware"):
        yield


class Client:
    """Of an app with a middleware that adds a header, and says in which task each part of a call ran."""

    def __init__(self) -> None:
        app = FastAPI()
        self.tasks: list[int] = []

        async def adds(request, call_next):
            self.tasks.append(id(asyncio.current_task()))
            response = await call_next(request)
            response.headers["added"] = request.headers.get("asked", "nothing")
            return response

        for _ in range(2):
            app.add_middleware(BaseHTTPMiddleware, dispatch=adds)

        @app.post("/answer/{status}")
        async def answer(status: int, body: dict[str, int]):
            self.tasks.append(id(asyncio.current_task()))
            return Response(None if status == 204 else str(body), status, {"of-its-own": "yes"})

        @app.get("/fails")
        async def fails():
            raise KeyError("of the endpoint")

        self.client = TestClient(app)

    def shown(self, status: int) -> tuple[int, dict[str, str], bytes]:
        """All of an answer."""
        said = self.client.post(f"/answer/{status}", json={"a": 1}, headers={"asked": "this"})
        return said.status_code, dict(said.headers), said.content


@pytest.mark.parametrize("status", [200, 204, 409])
def test_an_answer_is_as_upstreams_and_made_in_one_task(request, status):
    upstreams = Client()
    expected = upstreams.shown(status)
    request.getfixturevalue("ours")
    client = Client()
    assert client.shown(status) == expected
    assert expected[1]["added"] == "this"
    assert len(set(client.tasks)) == 1
    assert len(set(upstreams.tasks)) == 3, "Starlette has mended it: delete lean_middleware and this file"


@pytest.mark.usefixtures("ours")
def test_an_error_of_the_endpoint_comes_out():
    with pytest.raises(KeyError, match="of the endpoint"):
        Client().client.get("/fails")


@pytest.mark.usefixtures("ours")
def test_what_is_no_call_is_passed_on():
    said = []

    async def app(scope, *_):
        said.append(scope["type"])

    asyncio.run(BaseHTTPMiddleware(app, None)({"type": "lifespan"}, None, None))
    assert said == ["lifespan"]


def test_upstreams_middlewares_still_are_of_that_kind_and_nothing_is_streamed():
    """When this fails, Airflow has mended it (delete the work-round), or streams what would now be held in memory."""
    from airflow.api_fastapi.execution_api import app, routes
    from cadwyn.middleware import VersionPickingMiddleware

    for kind in (app.CorrelationIdMiddleware, app.JWTReissueMiddleware, VersionPickingMiddleware):
        assert issubclass(kind, BaseHTTPMiddleware)
    for route in routes.execution_api_router.routes:
        assert "Stream" not in str(route.endpoint.__annotations__.get("return"))
