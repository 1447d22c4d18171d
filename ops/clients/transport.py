"""HTTP transport of the clients: a service that does not answer is a StackError."""

from __future__ import annotations

from typing import Any

import httpx

from ops.errors import FAILURE, StackError

OBSERVABILITY_HINT = "check with ./ops/stack status whether the profile observability is on"


def unreachable(service: str, reason: object, *, where: str, hint: str) -> StackError:
    """Return the error of a service that does not answer."""
    return StackError(f"cannot reach {service}: {reason}", where=where, hint=hint, code=FAILURE)


def request(http: httpx.Client, service: str, method: str, path: str, **options: Any) -> httpx.Response:
    """Return the response to one request, whatever its status.

    Args:
        http: A client with a base URL.
        service: Its name, for the error.
        method: GET, POST or DELETE.
        path: Under the base URL.
        **options: Of httpx.Client.request.

    Raises:
        StackError: The service does not answer.
    """
    try:
        return http.request(method, path, **options)
    except httpx.HTTPError as error:
        where = str(http.base_url).rstrip("/")
        raise unreachable(service, error, where=where, hint=OBSERVABILITY_HINT) from error
