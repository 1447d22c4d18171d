"""What a Prometheus answers to a panel's queries."""

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


def query(server: Prometheus, expression: str, pattern: str, span: Span, *, now: bool = False) -> tuple[Series, ...]:
    """Asks for one query of a panel.

    Args:
        server: which to ask.
        expression: as it is in the panel.
        pattern: of the series' names.
        span: the time looked at.
        now: only the value at its end.

    Raises:
        StackError: Prometheus does not answer, or refuses the expression.
    """
    asked = with_times(expression, span)
    answer = server.query(asked, span.end) if now else server.query_range(asked, span.start, span.end, span.step)
    found = (_series(entry, pattern) for entry in answer)
    return tuple(series for series in found if series.points)


def _series(entry: Mapping[str, Any], pattern: str) -> Series:
    pairs = entry["values"] if "values" in entry else [entry["value"]]
    points = tuple((float(time), float(value)) for time, value in pairs if math.isfinite(float(value)))
    return Series(legend(pattern, entry["metric"]), points)


@dataclass(frozen=True)
class DrawnPanel:
    """A panel of Grafana's JSON, and what Prometheus answered.

    Attributes:
        title: as in Grafana.
        question: its description.
        kind: Grafana's word for how it is drawn.
        unit: Grafana's word.
        steps: from which value on which colour.
        words: value, and the text and colour instead of it.
        maximum: of the axis, if it is fixed.
        stacked: columns, one on the other.
        several: whether each value has a name.
        left: Grafana's column, of 24.
        top: Grafana's row.
        width: in columns.
        height: in rows.
        step: seconds between two points.
        series: the answer.
        missing: the queries without an answer.
        rightly_empty: when there would be something to see; empty for a panel that must show something.
    """

    title: str
    question: str
    kind: str
    unit: str
    steps: tuple[tuple[float | None, str], ...]
    words: tuple[tuple[float, tuple[str, str]], ...]
    maximum: float | None
    stacked: bool
    several: bool
    left: int
    top: int
    width: int
    height: int
    step: float
    series: tuple[Series, ...]
    missing: tuple[str, ...]
    rightly_empty: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.series


@dataclass(frozen=True)
class Board:
    """A dashboard of Grafana's JSON, with its answers."""

    name: str
    uid: str
    title: str
    question: str
    panels: tuple[DrawnPanel, ...]
