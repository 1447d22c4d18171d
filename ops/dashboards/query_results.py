"""Results of a panel's queries from Prometheus."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.clients.prometheus import Prometheus

SCRAPE_INTERVAL = 10.0
"""Seconds, as in compose/prometheus/prometheus.yaml; Grafana's `$__rate_interval` is at least four of them."""

POINTS = 240
"""Maximum number of points of a line."""


@dataclass(frozen=True)
class Span:
    """A time range.

    Attributes:
        start: Unix seconds.
        end: Unix seconds.
        minimum_step: Minimum seconds between two points.
    """

    start: float
    end: float
    minimum_step: float = SCRAPE_INTERVAL

    @property
    def step(self) -> float:
        """Seconds between two points."""
        return max(self.minimum_step, math.ceil((self.end - self.start) / POINTS))


@dataclass(frozen=True)
class Series:
    """One series of a panel.

    Attributes:
        name: The formatted legend.
        points: Unix seconds and value; only finite values.
    """

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The most recent value."""
        return self.points[-1][1]


def substitute_variables(expression: str, span: Span) -> str:
    """Return the expression with the values that Grafana would set for its variables.

    Raises:
        StackError: The expression has another variable.
    """
    rate_interval = max(span.step + SCRAPE_INTERVAL, 4 * SCRAPE_INTERVAL)
    values = {
        "$__rate_interval": f"{rate_interval:.0f}s",
        "$__range": f"{max(span.end - span.start, 1):.0f}s",
        "$__interval": f"{span.step:.0f}s",
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    if unknown := re.search(r"\$\{?[a-zA-Z_]\w*", expression):
        raise StackError(
            f"cannot substitute {unknown[0]} in a panel's query: the variable is unknown", where=expression
        )
    return expression


def format_legend(pattern: str, labels: Mapping[str, str]) -> str:
    """Return a series' name as Grafana formats it: `{{label}}` is the label's value; without a pattern, all labels."""
    if pattern:
        return " ".join(re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), pattern).split())
    return " ".join(value for label, value in sorted(labels.items()) if label != "__name__") or "value"


def query(
    server: Prometheus, expression: str, pattern: str, span: Span, *, instant: bool = False
) -> tuple[Series, ...]:
    """Run a panel's query.

    Args:
        server: The Prometheus server.
        expression: Expression with Grafana's variables.
        pattern: Legend of the series.
        span: The time range.
        instant: Return only the value at the end of the range.

    Raises:
        StackError: Prometheus did not respond, or refused the expression.
    """
    promql = substitute_variables(expression, span)
    entries = server.query(promql, span.end) if instant else server.query_range(promql, span.start, span.end, span.step)
    all_series = (_series(entry, pattern) for entry in entries)
    return tuple(series for series in all_series if series.points)


def _series(entry: Mapping[str, Any], pattern: str) -> Series:
    pairs = entry["values"] if "values" in entry else [entry["value"]]
    points = tuple((float(time), float(value)) for time, value in pairs if math.isfinite(float(value)))
    return Series(format_legend(pattern, entry["metric"]), points)


@dataclass(frozen=True)
class DrawnPanel:
    """A panel of Grafana's JSON with its query results.

    Attributes:
        title: Its title.
        question: Its description.
        kind: Grafana's panel type.
        unit: Grafana's unit.
        steps: Thresholds with their colours.
        value_texts: Values, with the text and the colour that replace each.
        maximum: End of the axis, if it is fixed.
        is_stacked: Whether it has stacked columns.
        has_names: Whether each value is shown with its name.
        left: Grafana's column, of 24.
        top: Grafana's row.
        width: In columns.
        height: In rows.
        step: Seconds between two points.
        series: The results.
        missing: The expressions without a result.
        empty_reason: When the panel has data, if it may be empty; otherwise an empty string.
    """

    title: str
    question: str
    kind: str
    unit: str
    steps: tuple[tuple[float | None, str], ...]
    value_texts: tuple[tuple[float, tuple[str, str]], ...]
    maximum: float | None
    is_stacked: bool
    has_names: bool
    left: int
    top: int
    width: int
    height: int
    step: float
    series: tuple[Series, ...]
    missing: tuple[str, ...]
    empty_reason: str

    @property
    def is_empty(self) -> bool:
        """Whether no query has a result."""
        return not self.series


@dataclass(frozen=True)
class Board:
    """A dashboard of Grafana's JSON with its query results."""

    name: str
    uid: str
    title: str
    question: str
    panels: tuple[DrawnPanel, ...]
