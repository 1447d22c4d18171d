"""The Execution API's middlewares answer as upstream, without an asyncio task and a stream per call."""

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
def patched():
    """The patch, applied for one test."""
    with applied("inline_api_middleware"):
        yield


class Client:
    """A client of an app with a middleware that adds a header and records the task of each part of a call."""

    def __init__(self) -> None:
        app = FastAPI()
        self.tasks: list[int] = []

        async def add_header(request, call_next):
            self.tasks.append(id(asyncio.current_task()))
            response = await call_next(request)
            response.headers["added"] = request.headers.get("value", "nothing")
            return response

        for middleware in (CorrelationIdMiddleware, JWTReissueMiddleware):
            app.add_middleware(middleware, dispatch=add_header)

        @app.post("/answer/{status}")
        async def answer(status: int, body: dict[str, int]):
            self.tasks.append(id(asyncio.current_task()))
            return Response(None if status == 204 else str(body), status, {"own": "yes"})

        @app.get("/fails")
        async def fails():
            raise KeyError("of the endpoint")

        self.client = TestClient(app)

    def post(self, status: int) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer."""
        response = self.client.post(f"/answer/{status}", json={"a": 1}, headers={"value": "this"})
        return response.status_code, dict(response.headers), response.content


@pytest.mark.parametrize("status", [200, 204, 409])
def test_answer_equals_upstream_and_needs_one_task(request, status):
    upstream = Client()
    expected = upstream.post(status)
    request.getfixturevalue("patched")
    client = Client()
    assert client.post(status) == expected
    assert expected[1]["added"] == "this"
    assert len(set(client.tasks)) == 1
    assert len(set(upstream.tasks)) == 3, "Starlette is fixed: delete inline_api_middleware and this file"


@pytest.mark.usefixtures("patched")
def test_error_of_the_endpoint_is_raised():
    with pytest.raises(KeyError, match="of the endpoint"):
        Client().client.get("/fails")


@pytest.mark.usefixtures("patched")
def test_scope_without_a_call_is_passed_on():
    scopes = []

    async def app(scope, *_):
        scopes.append(scope["type"])

    asyncio.run(CorrelationIdMiddleware(app, None)({"type": "lifespan"}, None, None))
    assert scopes == ["lifespan"]


class ReadsBody(BaseHTTPMiddleware):
    """A plugin's middleware that reads the body before the endpoint."""

    async def dispatch(self, request, call_next):
        body = await request.body()
        response = await call_next(request)
        response.headers["length"] = str(len(body))
        return response


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("order", [(ReadsBody, CorrelationIdMiddleware), (CorrelationIdMiddleware, ReadsBody)])
def test_plugin_middleware_can_read_the_body(order):
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


def test_only_three_middlewares_are_patched(request):
    upstream = BaseHTTPMiddleware.__call__
    request.getfixturevalue("patched")
    three = (CorrelationIdMiddleware, JWTReissueMiddleware, VersionPickingMiddleware)
    assert len({upstream, *(middleware.__call__ for middleware in three)}) == 2
    assert all("__call__" in vars(middleware) for middleware in three)
    assert ReadsBody.__call__ is BaseHTTPMiddleware.__call__ is upstream


def test_upstream_uses_base_middlewares_and_no_stream():
    """If this fails, upstream is fixed (delete the patch), or streams answers that the patch would hold in memory."""
    from airflow.api_fastapi.execution_api import routes

    for kind in (CorrelationIdMiddleware, JWTReissueMiddleware, VersionPickingMiddleware):
        assert issubclass(kind, BaseHTTPMiddleware)
    for route in routes.execution_api_router.routes:
        assert "Stream" not in str(route.endpoint.__annotations__.get("return"))
