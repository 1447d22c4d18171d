"""The model of a dashboard: rows of panels, each with the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["value", "gauge", "lines", "columns", "bars", "states"]
"""One or a few numbers, a dial, lines over time, stacked columns over time, a bar a label, states over time."""

Unit = Literal["short", "s", "bytes", "percentunit", "ops", "cpm"]
"""Grafana's names for: a count, seconds, bytes, a share of 1, a rate per second, a rate per minute."""

Steps = tuple[tuple[float | None, str], ...]
"""Thresholds: the colour from a value on; the first has no value."""

PLAIN: Steps = ((None, "blue"),)
NONE_IS_GOOD: Steps = ((None, "green"), (1, "red"))
ALL_IS_GOOD: Steps = ((None, "red"), (1, "green"))


STATE_COLOURS = {
    "success": "green",
    "failed": "red",
    "up_for_retry": "orange",
    "running": "green",
    "queued": "orange",
    "scheduled": "blue",
    "deferred": "purple",
}
"""The colour of a series that is named after a state."""


@dataclass(frozen=True)
class Query:
    """A query of a panel.

    Attributes:
        expression: PromQL, with Grafana's variables `$__rate_interval` and `$__range`.
        legend: Name of the series, with `{{label}}` for the value of a label.
    """

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: A short noun phrase.
        question: The question that it answers, and the meaning of a bad value; Grafana's panel description.
        kind: The type of visualization.
        queries: The queries.
        unit: Unit of the values.
        steps: Thresholds with their colours.
        width: Of 24 columns.
        height: In Grafana's rows of 30 px.
        maximum: End of the dial, the bar or the axis; None for automatic.
        value_texts: Texts that replace values, with their colours.
        airflow_path: Path of the related page in Airflow's UI.
        runbook: Name of the runbook in alerting/runbooks, without its extension.
    """

    title: str
    question: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit = "short"
    steps: Steps = PLAIN
    width: int = 8
    height: int = 7
    maximum: float | None = None
    value_texts: tuple[tuple[int, str, str], ...] = ()
    airflow_path: str = ""
    runbook: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A dashboard.

    Attributes:
        uid: Must never change, because links and bookmarks contain it.
        title: Its name in the list.
        question: The question that it answers.
        rows: Rows of panels, from the top; the widths in a row add up to 24.
    """

    uid: str
    title: str
    question: str
    rows: tuple[tuple[Panel, ...], ...]
