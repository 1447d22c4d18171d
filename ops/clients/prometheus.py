"""Prometheus' HTTP API, as far as operating the stack needs it: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.services import local_url

if TYPE_CHECKING:
    from collections.abc import Mapping

from typing import Any, TypedDict

import httpx

from ops.errors import FAILURE, StackError

TIMEOUT = 30.0
"""Seconds for one answer: a panel may ask for a week."""


class Target(TypedDict):
    """One thing that Prometheus scrapes; `health` is up, down or unknown."""

    job: str
    instance: str
    health: str
    error: str


class Rule(TypedDict):
    """One rule that records or alerts; `health` is ok, err or unknown, the last before it was evaluated first."""

    name: str
    health: str
    error: str


class Prometheus:
    """A Prometheus server.

    Args:
        url: Where it listens.
        transport: For tests: answers instead of the network.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, transport=transport)

    def _get(self, path: str, **params: Any) -> Any:
        """The data of an answer.

        Raises:
            StackError: Prometheus does not answer, or refuses the query.
        """
        try:
            response = self._http.get(f"/api/v1/{path}", params=params)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise StackError(
                f"Prometheus cannot be reached: {error}",
                where=self.url,
                hint="is the profile observability on? ./ops/stack status",
                code=FAILURE,
            ) from error
        if answer["status"] != "success":
            raise StackError(
                f"Prometheus refuses a query: {answer.get('error')}", where=str(params.get("query", path)), code=FAILURE
            )
        return answer["data"]

    def targets(self) -> list[Target]:
        """What it scrapes now, and whether that answers."""
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
        """All that it has loaded."""
        return [
            Rule(name=rule["name"], health=rule["health"], error=rule.get("lastError", ""))
            for group in self._get("rules")["groups"]
            for rule in group["rules"]
        ]

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """The instant vector of an expression: a list of `metric` (labels) and `value` (time, text).

        Args:
            expression: PromQL.
            time: Unix seconds; now unless given.
        """
        at = {} if time is None else {"time": time}
        result: list[dict[str, Any]] = self._get("query", query=expression, **at)["result"]
        return result

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The matrix of an expression: a list of `metric` (labels) and `values` (pairs of time and text).

        Args:
            expression: PromQL.
            start: Unix seconds.
            end: Unix seconds.
            step: seconds between two values.
        """
        times = {"start": start, "end": end, "step": step}
        result: list[dict[str, Any]] = self._get("query_range", query=expression, **times)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one number of an expression; None when it returns nothing.

        Raises:
            StackError: It returns more than one series.
        """
        found = self.query(expression)
        if len(found) > 1:
            raise StackError(f"{len(found)} series, not one", where=expression, code=FAILURE)
        return float(found[0]["value"][1]) if found else None


def is_settled(settings: Mapping[str, str]) -> bool:
    """Whether the stack has settled, no page fires, and nothing that an earlier fault broke is still muted."""
    server = Prometheus(local_url(settings, "prometheus"))
    loud = server.query('ALERTS{alertstate="firing", severity="page"} or ALERTS{alertname="Aftermath"}')
    return not loud and bool(server.query("airflow_stack_settled"))
