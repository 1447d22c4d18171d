"""The Execution API's middlewares answer what upstream's answer, without a task and a stream for each call."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from airflow.api_fastapi.execution_api.app import CorrelationIdMiddleware, JWTReissueMiddleware
from cadwyn.middleware import VersionPickingMiddleware
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

from tests.unit.patches.loading import applied


@pytest.fixture
def ours():
    """Our patch, for one test."""
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

        for middleware in (CorrelationIdMiddleware, JWTReissueMiddleware):
            app.add_middleware(middleware, dispatch=adds)

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
    assert len(set(upstreams.tasks)) == 3, "Starlette has fixed it: delete inline_api_middleware and this file"


@pytest.mark.usefixtures("ours")
def test_an_error_of_the_endpoint_comes_out():
    with pytest.raises(KeyError, match="of the endpoint"):
        Client().client.get("/fails")


@pytest.mark.usefixtures("ours")
def test_what_is_no_call_is_passed_on():
    said = []

    async def app(scope, *_):
        said.append(scope["type"])

    asyncio.run(CorrelationIdMiddleware(app, None)({"type": "lifespan"}, None, None))
    assert said == ["lifespan"]


class ReadsBody(BaseHTTPMiddleware):
    """A plugin's middleware: it reads the body before the endpoint does."""

    async def dispatch(self, request, call_next):
        body = await request.body()
        response = await call_next(request)
        response.headers["length"] = str(len(body))
        return response


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("order", [(ReadsBody, CorrelationIdMiddleware), (CorrelationIdMiddleware, ReadsBody)])
def test_a_plugins_middleware_may_read_the_body_of_a_post(order):
    app = FastAPI()
    for middleware in order:
        app.add_middleware(middleware)

    @app.post("/answer")
    async def answer(body: dict[str, int]):
        return body

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://plugin") as client:
            call = client.post("/answer", json={"a": 1}, headers={"correlation-id": "7"})
            return await asyncio.wait_for(call, 10)

    answered = asyncio.run(post())
    assert answered.json() == {"a": 1}
    assert (answered.headers["length"], answered.headers["correlation-id"]) == ("7", "7")


def test_only_upstreams_three_middlewares_are_replaced(request):
    upstreams = BaseHTTPMiddleware.__call__
    request.getfixturevalue("ours")
    three = (CorrelationIdMiddleware, JWTReissueMiddleware, VersionPickingMiddleware)
    assert len({upstreams, *(middleware.__call__ for middleware in three)}) == 2
    assert all("__call__" in vars(middleware) for middleware in three)
    assert ReadsBody.__call__ is BaseHTTPMiddleware.__call__ is upstreams


def test_upstreams_middlewares_still_are_of_that_kind_and_nothing_is_streamed():
    """When this fails, Airflow has fixed it (delete the patch), or streams what would now be held in memory."""
    from airflow.api_fastapi.execution_api import routes

    for kind in (CorrelationIdMiddleware, JWTReissueMiddleware, VersionPickingMiddleware):
        assert issubclass(kind, BaseHTTPMiddleware)
    for route in routes.execution_api_router.routes:
        assert "Stream" not in str(route.endpoint.__annotations__.get("return"))
