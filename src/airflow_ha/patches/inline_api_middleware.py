"""A call of the Execution API is passed through its three middlewares as it is, not through tasks and streams.

The fault, in Airflow 3.3.2 and Cadwyn 7.0: what wraps each call (the correlation ID, the token that is issued anew,
the API's version) is a `BaseHTTPMiddleware` of Starlette's, made for answers that are streamed while they are written.
Each makes a group of tasks, a task, a stream in memory and an event for a call, one inside the other: a fifth of the
server's own work for answers of some hundred bytes (https://github.com/encode/starlette/issues/1678).

The work-round: in the Execution API, which streams nothing, a middleware awaits what is inside it, and has the whole
answer then. What each adds to it is upstream's own `dispatch`.
Measured on 2 cores: with request_session, a task costs the Execution API 0.052 CPU-seconds instead of 0.065.

It can go when the tests in `test_lean_middleware.py` say that upstream has mended it.
Loaded by the Execution API with the settings of its database (database_config.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
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
    """Await what is inside a middleware."""
    middleware: Any = BaseHTTPMiddleware
    middleware.__call__ = call
