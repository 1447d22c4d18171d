"""What a dashboard is made of, before it is anybody's JSON: panels, each with the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["value", "gauge", "lines", "columns", "bars", "states"]
"""One number (or a few), a dial, lines over time, stacked columns over time, a bar for each label, states over time."""

Unit = Literal["short", "s", "bytes", "percentunit", "ops", "cpm"]
"""Grafana's word: a count, seconds, bytes, a share of 1, a second, a minute."""

Steps = tuple[tuple[float | None, str], ...]
"""From which value on which colour; the first has no value."""

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
"""The colours of states, wherever one is the name of a line."""


@dataclass(frozen=True)
class Query:
    """One PromQL expression, and how its series are named.

    Attributes:
        expression: Grafana's `$__rate_interval` and `$__range` may be in it.
        legend: with `{{label}}`s.
    """

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture, and the question that it answers.

    Attributes:
        title: a few words.
        question: what it answers, and what a bad answer looks like: Grafana shows it as the panel's description.
        kind: how it is drawn.
        queries: what is drawn.
        unit: of the values.
        steps: from which value on which colour.
        width: of 24 columns.
        height: in Grafana's rows of 30 px.
        top: the value at the end of a dial or bar, or of the axis; None for whatever comes.
        words: texts instead of values, with their colours.
        airflow: where in Airflow one looks on: a path.
        runbook: what to do about it: the file's name in alerting/runbooks, without its end.
    """

    title: str
    question: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit = "short"
    steps: Steps = PLAIN
    width: int = 8
    height: int = 7
    top: float | None = None
    words: tuple[tuple[int, str, str], ...] = ()
    airflow: str = ""
    runbook: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A page of panels.

    Attributes:
        uid: never changes: links and bookmarks hold it.
        title: its name in the list.
        question: what one opens it for.
        rows: of panels, from the top; the widths of a row add up to 24.
    """

    uid: str
    title: str
    question: str
    rows: tuple[tuple[Panel, ...], ...]
