"""Airflow's REST API, read only, at a bounded cost: every answer has a time-out, and all of them together a deadline.

Log-ins are few, since Airflow refuses more than five in 40 s and each check is a process of its own: the token is left
in a file that only this user can read, and used by the checks after it until it is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from airflow_ha.telemetry.exporter_address import shared_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 10.0
TOTAL_LIMIT = 25.0
"""Seconds for everything that one check asks."""

RETRY_SECONDS = 1.0
PAGE = 100
"""Airflow's own `[api] maximum_page_limit`."""

log = logging.getLogger(__name__)


class AirflowApiError(Exception):
    """Airflow did not answer as it should; the message says to what, and how."""


class TokenFile:
    """Where the token is kept from one process to the next.

    Args:
        directory: one that only this user can read; None keeps nothing.
        account: whose token it is: another address, name or password has another file.
    """

    def __init__(self, directory: Path | None, account: tuple[str, str, str]) -> None:
        name = hashlib.sha256(json.dumps(account).encode()).hexdigest()[:16]
        self._path = directory / f"airflow-token-{name}" if directory else None

    def read(self) -> str | None:
        """The token, None when there is none that could be trusted."""
        if not self._path:
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, encoding="ascii") as file:
                return file.read().strip() or None
        except (OSError, ValueError):
            return None

    def write(self, token: str) -> None:
        """Keep a token, readable by this user alone from its first moment. That it cannot be kept is no failure."""
        if not self._path:
            return
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token)
            part.replace(self._path)


class AirflowApi:
    """One check's session.

    Args:
        url: of the API servers.
        login: the account.
        password: its password.
        directory: where the token is kept; by default a private one under /tmp.
        limit: seconds for everything that is asked.
        transport: for tests: answers instead of the network.
        sleep: for tests: how to wait.
    """

    def __init__(
        self,
        url: str,
        login: str,
        password: str,
        *,
        directory: Path | None = None,
        limit: float = TOTAL_LIMIT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._login, self._password = url, login, password
        self._file = TokenFile(directory or shared_directory("monitoring"), (url, login, password))
        self._token = self._file.read()
        self._deadline = time.monotonic() + limit
        self._limit = limit
        self._sleep = sleep
        self._http = httpx.Client(base_url=url, transport=transport, follow_redirects=False)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """One answer.

        Args:
            path: under /api/v2.
            params: the query; a list gives its name several times.

        Raises:
            AirflowApiError: there is no good answer within the limit.
        """
        kept = self._token is not None
        response = self._authorised(path, params)
        if response.status_code == httpx.codes.UNAUTHORIZED and kept:
            log.info("Airflow no longer takes the token; logging in")
            self._token = None
            response = self._authorised(path, params)
        return self._json(response, path)

    def count(self, path: str, **params: Any) -> int:
        """How many there are."""
        return int(self.get(path, **params, limit=1)["total_entries"])

    def pages(self, path: str, key: str, most: int, **params: Any) -> tuple[list[dict[str, Any]], bool]:
        """What is in a list.

        Args:
            path: under /api/v2.
            key: where an answer has its entries.
            most: pages at most.
            params: the query.

        Returns:
            The entries, and whether there are more than that.
        """
        found: list[dict[str, Any]] = []
        for _ in range(most):
            page = self.get(path, **params, limit=PAGE, offset=len(found))
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found, False
        return found, True

    def _authorised(self, path: str, params: dict[str, Any]) -> httpx.Response:
        if self._token is None:
            self._token = self._log_in()
            self._file.write(self._token)
        return self._request("GET", f"/api/v2{path}", params=params, headers={"Authorization": f"Bearer {self._token}"})

    def _log_in(self) -> str:
        answer = self._request("POST", "/auth/token", json={"username": self._login, "password": self._password})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise AirflowApiError(
                f"Airflow refuses the log-in of {self._login}: the password of the connection is not that account's; "
                "./ops/stack up sets both anew"
            )
        return str(self._json(answer, "/auth/token")["access_token"])

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer that is not a server's failure, tried until the deadline."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise AirflowApiError(f"{method} {path}: {self._limit:g} s for all answers were not enough")
            timeout = httpx.Timeout(min(READ_TIMEOUT, left), connect=min(CONNECT_TIMEOUT, left))
            try:
                response = self._http.request(method, path, timeout=timeout, **options)
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return response
                problem = f"status {response.status_code}"
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
            if self._deadline - time.monotonic() <= RETRY_SECONDS:
                raise AirflowApiError(f"{method} {self._url}{path}: {problem}")
            log.warning("%s %s: %s; once more", method, path, problem)
            self._sleep(RETRY_SECONDS)

    def _json(self, response: httpx.Response, path: str) -> dict[str, Any]:
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise AirflowApiError(
                f"{path}: Airflow has had too many log-ins in a short time; the next check tries again"
            )
        if not response.is_success:
            raise AirflowApiError(f"{path}: status {response.status_code}: {response.text[:300]}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AirflowApiError(f"{path}: the answer is not what Airflow sends: {response.text[:300]!r}")
        return answer
