"""What a Prometheus answers to a panel's queries, over its HTTP API."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRAPE_INTERVAL = 10.0
"""Seconds, as in compose/prometheus/prometheus.yaml: Grafana's `$__rate_interval` is at least four of them."""

POINTS = 240
"""As many as a line of a picture needs."""


@dataclass(frozen=True)
class Span:
    """The time that is looked at.

    Attributes:
        start: Unix seconds.
        end: Unix seconds.
        at_least: seconds between two points, which a panel may want more of.
    """

    start: float
    end: float

    at_least: float = SCRAPE_INTERVAL

    @property
    def step(self) -> float:
        """Seconds between two points."""
        return max(self.at_least, math.ceil((self.end - self.start) / POINTS))


@dataclass(frozen=True)
class Series:
    """One line of a picture.

    Attributes:
        name: by the query's legend.
        points: Unix seconds and value; no value that is not a number.
    """

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


def with_times(expression: str, span: Span) -> str:
    """The expression with Grafana's variables replaced by what Grafana would put there."""
    rate_interval = max(span.step + SCRAPE_INTERVAL, 4 * SCRAPE_INTERVAL)
    values = {
        "$__rate_interval": f"{rate_interval:.0f}s",
        "$__range": f"{max(span.end - span.start, 1):.0f}s",
        "$__interval": f"{span.step:.0f}s",
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    if unknown := re.search(r"\$\{?[a-zA-Z_]\w*", expression):
        raise StackError(f"{unknown[0]} in a panel's query is no variable that can be filled in", where=expression)
    return expression


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """A series' name, as Grafana makes it: `{{label}}` is the label's value; without a pattern, all labels."""
    if pattern:
        return " ".join(re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda place: labels.get(place[1], ""), pattern).split())
    return " ".join(value for label, value in sorted(labels.items()) if label != "__name__") or "value"


def query(client: httpx.Client, expression: str, pattern: str, span: Span, *, now: bool = False) -> tuple[Series, ...]:
    """Asks for one query of a panel.

    Args:
        client: with Prometheus' URL as its base.
        expression: as it is in the panel.
        pattern: of the series' names.
        span: the time looked at.
        now: only the value at its end.

    Raises:
        StackError: Prometheus does not answer, or refuses the expression.
    """
    asked = with_times(expression, span)
    try:
        if now:
            answer = client.get("/api/v1/query", params={"query": asked, "time": span.end})
        else:
            times = {"start": span.start, "end": span.end, "step": span.step}
            answer = client.get("/api/v1/query_range", params={"query": asked, **times})
        body = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise StackError(
            f"Prometheus does not answer: {error}",
            where=str(client.base_url),
            cure="./ops/stack status shows whether it runs; it belongs to the profile observability",
            code=FAILURE,
        ) from error
    if body.get("status") != "success":
        raise StackError(
            f"Prometheus refuses a query: {body.get('error', answer.status_code)}", where=asked, code=FAILURE
        )
    found = (_series(entry, pattern) for entry in body["data"]["result"])
    return tuple(series for series in found if series.points)


def _series(entry: Mapping[str, Any], pattern: str) -> Series:
    pairs = entry["values"] if "values" in entry else [entry["value"]]
    points = tuple((float(time), float(value)) for time, value in pairs if math.isfinite(float(value)))
    return Series(legend(pattern, entry["metric"]), points)
