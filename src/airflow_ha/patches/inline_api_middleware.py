"""A call of the Execution API is passed through its three middlewares as it is, not through tasks and streams.

Problem: what wraps each call in Airflow 3.3.2 and Cadwyn 7.0 (the correlation ID, the token that is issued anew, the
API's version) is a `BaseHTTPMiddleware` of Starlette's, made for answers that are streamed while they are written. Each
makes a group of tasks, a task, a stream in memory and an event for a call: a fifth of the server's own work.
Patch: these three await what is inside them, and have the whole answer then; what each adds is its own `dispatch`. With
open_session_on_event_loop a task costs the API 0.052 CPU-seconds instead of 0.065, on 2 cores. Another middleware, such
as a plugin's, stays as it is: it may stream, or read the body before its endpoint does.
Applies to: execution-api.
Upstream issue: https://github.com/encode/starlette/issues/1678
Remove when: the tests in `test_inline_api_middleware.py` say that upstream has changed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.types import Message, Receive, Scope, Send


async def call(self: BaseHTTPMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
    """As upstream's `__call__`, for an answer that fits into memory.

    Args:
        self: the middleware.
        scope: what is asked.
        receive: gives the request's body.
        send: takes the answer.
    """
    if scope["type"] != "http":
        await self.app(scope, receive, send)
        return

    async def call_next(_: Request) -> Response:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self.app(scope, receive, keep)
        start, *parts = answer
        response = Response(b"".join(part.get("body", b"") for part in parts), start["status"])
        response.raw_headers = start["headers"]
        return response

    response = await self.dispatch_func(Request(scope, receive), call_next)
    await response(scope, receive, send)


def apply() -> None:
    """Await what is inside each of upstream's three middlewares."""
    from airflow.api_fastapi.execution_api import app
    from cadwyn.middleware import VersionPickingMiddleware

    middlewares: tuple[Any, ...] = (app.CorrelationIdMiddleware, app.JWTReissueMiddleware, VersionPickingMiddleware)
    for middleware in middlewares:
        middleware.__call__ = call
