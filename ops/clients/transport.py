"""HTTP transport of the clients: the log-in at the pages' door, and an error for a service that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from ops.errors import FAILURE, StackError
from ops.project import ADMIN, ROOT
from ops.services import LOGIN

if TYPE_CHECKING:
    from collections.abc import Mapping

OBSERVABILITY_HINT = "check with ./ops/stack status whether the profile observability is on"


def page_log_in(settings: Mapping[str, str]) -> tuple[str, str]:
    """Return user and password of the pages without a log-in of their own.

    Args:
        settings: Of .env; SECRETS_DIR is absolute, or relative to compose/.

    Raises:
        StackError: The password is not readable.
    """
    path = ROOT / "compose" / settings["SECRETS_DIR"] / LOGIN
    try:
        return ADMIN, path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StackError(
            f"cannot read the password of the pages: {error.strerror}",
            where=str(path),
            hint="run ./ops/stack up, which creates it, as the user who ran it first",
        ) from error


def unreachable(service: str, reason: object, *, where: str, hint: str) -> StackError:
    """Return the error of a service that does not answer."""
    return StackError(f"cannot reach {service}: {reason}", where=where, hint=hint, code=FAILURE)


def require_log_in(response: httpx.Response, service: str) -> None:
    """Raise an error if the door refuses the log-in.

    Raises:
        StackError: The password differs from the one that the door started with, or was wrong too often.
    """
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS):
        raise StackError(
            f"cannot log in to {service}: status {response.status_code}",
            where=f"{response.request.method} {response.request.url}",
            hint=f"run ./ops/stack up, which applies the secret {LOGIN}; after too many failures wait 5 minutes",
            code=FAILURE,
        )


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
