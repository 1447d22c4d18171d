"""A read-only client of Airflow's REST API with bounded cost: a timeout per response, and a deadline for all of them.

Airflow refuses more than five log-ins in 40 s, and each check is a separate process. So the token is stored in a file
that only this user can read, and later checks use it until Airflow refuses it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from airflow_ha.telemetry.exporter_address import shared_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 10.0
TOTAL_LIMIT = 25.0
"""Seconds for all requests of one check."""

RETRY_SECONDS = 1.0
PAGE = 100
"""Airflow's own `[api] maximum_page_limit`."""

log = logging.getLogger(__name__)


class AirflowApiError(Exception):
    """Airflow gave no valid response; the message names the request and the reason."""


class LogInRefusedError(AirflowApiError):
    """Airflow refused the account's password."""


class Account(NamedTuple):
    """The API's URL, and the login and password of an account."""

    url: str
    login: str
    password: str


class TokenFile:
    """The file that passes the token from one process to the next.

    Args:
        directory: readable by this user alone; if None, the token is not stored.
        account: the token's account; another URL, login or password has another file.
    """

    def __init__(self, directory: Path | None, account: Account) -> None:
        name = hashlib.sha256(json.dumps(account).encode()).hexdigest()[:16]
        self._path = directory / f"airflow-token-{name}" if directory else None

    def read(self) -> str | None:
        """Return the token; None if no trustworthy file exists."""
        if not self._path:
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, encoding="ascii") as file:
                return file.read().strip() or None
        except (OSError, ValueError):
            return None

    def write(self, token: str) -> None:
        """Store a token, readable by this user alone from its creation. If it cannot be stored, nothing happens."""
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
    """The session of one check.

    Args:
        account: of the API servers.
        directory: stores the token; by default a private directory under /tmp.
        limit: seconds for all requests.
        transport: replaces the network in tests.
        sleep: replaces `time.sleep` in tests.
    """

    def __init__(
        self,
        account: Account,
        *,
        directory: Path | None = None,
        limit: float = TOTAL_LIMIT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._account = account
        self._file = TokenFile(directory or shared_directory("monitoring"), account)
        self._token = self._file.read()
        self._deadline = time.monotonic() + limit
        self._limit = limit
        self._sleep = sleep
        self._http = httpx.Client(base_url=account.url, transport=transport, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return the JSON object of one response.

        Args:
            path: under /api/v2.
            params: the query; a list repeats its name.

        Raises:
            AirflowApiError: no valid response arrived within the limit.
        """
        is_stored = self._token is not None
        response = self._authorised(path, params)
        if response.status_code == httpx.codes.UNAUTHORIZED and is_stored:
            log.info("Airflow refused the stored token; logging in")
            self._token = None
            response = self._authorised(path, params)
        return self._json(response, path)

    def count(self, path: str, **params: Any) -> int:
        """Return the number of entries."""
        return int(self.get(path, **params, limit=1)["total_entries"])

    def pages(self, path: str, key: str, most: int, **params: Any) -> tuple[list[dict[str, Any]], bool]:
        """Return the entries of a list.

        Args:
            path: under /api/v2.
            key: the response's key of the entries.
            most: the most pages to read.
            params: the query.

        Returns:
            The entries, and whether the list has more.
        """
        entries: list[dict[str, Any]] = []
        for _ in range(most):
            page = self.get(path, **params, limit=PAGE, offset=len(entries))
            entries += page[key]
            if not page[key] or len(entries) >= page["total_entries"]:
                return entries, False
        return entries, True

    def _authorised(self, path: str, params: dict[str, Any]) -> httpx.Response:
        if self._token is None:
            self._token = self._log_in()
            self._file.write(self._token)
        return self._request("GET", f"/api/v2{path}", params=params, headers={"Authorization": f"Bearer {self._token}"})

    def _log_in(self) -> str:
        _, login, password = self._account
        response = self._request("POST", "/auth/token", json={"username": login, "password": password})
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise LogInRefusedError(
                f"cannot log in to Airflow as {login}: the connection's password is not the account's. "
                "hint: run ./ops/stack up, which sets both"
            )
        return str(self._json(response, "/auth/token")["access_token"])

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return a response that is not a server error; retry until the deadline."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise AirflowApiError(f"cannot {method} {path}: the limit of {self._limit:g} s for a check has passed")
            timeout = httpx.Timeout(min(READ_TIMEOUT, left), connect=min(CONNECT_TIMEOUT, left))
            try:
                response = self._http.request(method, path, timeout=timeout, **options)
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return response
                problem = f"status {response.status_code}"
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
            if self._deadline - time.monotonic() <= RETRY_SECONDS:
                raise AirflowApiError(f"cannot {method} {self._account.url}{path}: {problem}")
            log.warning("cannot %s %s: %s; retrying", method, path, problem)
            self._sleep(RETRY_SECONDS)

    def _json(self, response: httpx.Response, path: str) -> dict[str, Any]:
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise AirflowApiError(
                f"cannot read {path}: Airflow refuses more log-ins for now (status 429); the next check retries"
            )
        if not response.is_success:
            raise AirflowApiError(f"cannot read {path}: status {response.status_code}: {response.text[:300]}")
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise AirflowApiError(f"cannot read {path}: the response is not a JSON object: {response.text[:300]!r}")
        return content
