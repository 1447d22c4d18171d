"""Client of Prometheus' HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import httpx

from ops.clients import transport
from ops.errors import FAILURE, StackError
from ops.services import local_url

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = 30.0
"""Seconds, for one response: a panel may query a week."""


class Target(TypedDict):
    """A scrape target; `health` is up, down or unknown."""

    job: str
    instance: str
    health: str
    error: str


class Rule(TypedDict):
    """A recording or alert rule; `health` is ok, err, or unknown before its first evaluation."""

    name: str
    health: str
    error: str


class Prometheus:
    """A Prometheus server.

    Args:
        url: Its base URL.
        log_in: User and password.
        transport: Replaces the network in tests.
    """

    def __init__(
        self, url: str, log_in: tuple[str, str] | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, auth=log_in, timeout=TIMEOUT, transport=transport)

    def _get(self, path: str, **params: Any) -> Any:
        """Return the data of a response.

        Raises:
            StackError: Prometheus does not answer with JSON, or refuses the query.
        """
        response = transport.request(self._http, "Prometheus", "GET", f"/api/v1/{path}", params=params)
        transport.require_log_in(response, "Prometheus")
        try:
            content = response.json()
        except ValueError as error:
            hint = transport.OBSERVABILITY_HINT
            raise transport.unreachable("Prometheus", error, where=self.url, hint=hint) from error
        if content["status"] != "success":
            raise StackError(
                f"cannot query Prometheus: {content.get('error')}",
                where=str(params.get("query", path)),
                code=FAILURE,
            )
        return content["data"]

    def targets(self) -> list[Target]:
        """Return the active scrape targets, by job and instance."""
        return sorted(
            (
                Target(
                    job=target["labels"]["job"],
                    instance=target["labels"]["instance"],
                    health=target["health"],
                    error=target["lastError"],
                )
                for target in self._get("targets", state="active")["activeTargets"]
            ),
            key=lambda target: (target["job"], target["instance"]),
        )

    def rules(self) -> list[Rule]:
        """Return all loaded rules."""
        return [
            Rule(name=rule["name"], health=rule["health"], error=rule.get("lastError", ""))
            for group in self._get("rules")["groups"]
            for rule in group["rules"]
        ]

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """Return the instant vector of an expression: a list of `metric` (labels) and `value` (time, text).

        Args:
            expression: PromQL.
            time: Unix seconds; now unless given.
        """
        at = {} if time is None else {"time": time}
        result: list[dict[str, Any]] = self._get("query", query=expression, **at)["result"]
        return result

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Return the matrix of an expression: a list of `metric` (labels) and `values` (pairs of time and text).

        Args:
            expression: PromQL.
            start: Unix seconds.
            end: Unix seconds.
            step: Seconds between two values.
        """
        times = {"start": start, "end": end, "step": step}
        result: list[dict[str, Any]] = self._get("query_range", query=expression, **times)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Return the value of an expression's only series; None if it has none.

        Raises:
            StackError: It has more than one series.
        """
        series = self.query(expression)
        if len(series) > 1:
            raise StackError(f"cannot read one value: {len(series)} series", where=expression, code=FAILURE)
        return float(series[0]["value"][1]) if series else None


def connect(settings: Mapping[str, str]) -> Prometheus:
    """Return a client of the stack's Prometheus.

    Args:
        settings: Of .env.

    Raises:
        StackError: The password is not readable.
    """
    return Prometheus(local_url(settings, "prometheus"), transport.page_log_in(settings))


def is_settled(settings: Mapping[str, str]) -> bool:
    """Whether the stack has settled, no page fires, and no aftermath of an earlier fault is left."""
    server = connect(settings)
    active = server.query('ALERTS{alertstate="firing", severity="page"} or ALERTS{alertname="Aftermath"}')
    return not active and bool(server.query("airflow_stack_settled"))
