"""Runs every panel's query against a live Prometheus and draws the dashboards: one HTML page, and a PNG each.

What it draws is Grafana's own JSON (generated/): what CI keeps of a run, and what people look at without Grafana.
"""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ops.dashboards.expected_empty import RIGHTLY_EMPTY
from ops.dashboards.query_results import Board, DrawnPanel, Span, query

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ops.clients.prometheus import Prometheus


def read_boards(folder: Path, server: Prometheus, span: Span) -> tuple[Board, ...]:
    """Asks Prometheus everything that the dashboards ask.

    Args:
        folder: of Grafana's JSON files.
        server: which to ask.
        span: the time looked at.

    Raises:
        StackError: Prometheus does not answer, or refuses a query.
    """
    documents = ((path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json")))
    return tuple(
        Board(
            name,
            document["uid"],
            document["title"],
            document["description"],
            tuple(_asked(panel, document["uid"], server, span) for panel in document["panels"]),
        )
        for name, document in documents
    )


def _asked(panel: dict[str, Any], uid: str, server: Prometheus, span: Span) -> DrawnPanel:
    if panel.get("interval"):
        span = replace(span, at_least=60 * float(panel["interval"].removesuffix("m")))
    answers = {
        target["expr"]: query(
            server, target["expr"], target.get("legendFormat", ""), span, now=bool(target.get("instant"))
        )
        for target in panel["targets"]
    }
    defaults, place = panel["fieldConfig"]["defaults"], panel["gridPos"]
    words = {
        float(value): (result["text"], result["color"])
        for mapping in defaults.get("mappings", [])
        for value, result in mapping["options"].items()
    }
    return DrawnPanel(
        title=panel["title"],
        question=panel["description"],
        kind=panel["type"],
        unit=defaults["unit"],
        steps=tuple((step["value"], step["color"]) for step in defaults["thresholds"]["steps"]),
        words=tuple(words.items()),
        maximum=defaults.get("max"),
        stacked=defaults.get("custom", {}).get("drawStyle") == "bars",
        several=panel["options"].get("textMode") == "value_and_name",
        left=place["x"],
        top=place["y"],
        width=place["w"],
        height=place["h"],
        step=span.step,
        series=tuple(series for answer in answers.values() for series in answer),
        missing=tuple(expression for expression, answer in answers.items() if not answer),
        rightly_empty=RIGHTLY_EMPTY.get((uid, panel["title"]), ""),
    )


def wrongly_empty(boards: Iterable[Board]) -> dict[str, tuple[str, ...]]:
    """The queries without an answer, by dashboard and panel; those left out that may have none."""
    return {
        f"{board.title}: {panel.title}": panel.missing
        for board in boards
        for panel in board.panels
        if panel.missing and not panel.rightly_empty
    }


def render(server: Prometheus, folder: Path, out: Path, span: Span) -> tuple[Board, ...]:
    """Draws every dashboard: `<name>.png` each, and all of them in `index.html`, which needs no other file.

    Args:
        server: which to ask.
        folder: of Grafana's JSON files.
        out: where to; made if it is not there.
        span: the time looked at.

    Returns:
        What was drawn; see `wrongly_empty`.

    Raises:
        StackError: Prometheus does not answer, or refuses a query.
    """
    from ops.dashboards.draw import picture  # a second of imports that listing dashboards need not pay

    boards = read_boards(folder, server, span)
    out.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for board in boards:
        image = io.BytesIO()
        picture(board, span).savefig(image, format="png", dpi=90)
        pictures[board.name] = image.getvalue()
        (out / f"{board.name}.png").write_bytes(image.getvalue())
    (out / "index.html").write_text(page(boards, pictures), encoding="utf-8")
    return boards


def page(boards: Iterable[Board], pictures: dict[str, bytes]) -> str:
    """All pictures on one page, each with the questions that its panels answer.

    Args:
        boards: the dashboards.
        pictures: PNG, by the dashboards' names.
    """
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Dashboards</title>",
        "<style>body{font:14px system-ui;margin:2em auto;max-width:1600px;color:#1f2328}img{width:100%}"
        "dt{font-weight:600;margin-top:.5em}dd{margin:0}</style>",
        "<h1>Dashboards</h1>",
    ]
    for board in boards:
        image = base64.b64encode(pictures[board.name]).decode()
        title = html.escape(board.title)
        parts.append(f"<h2 id='{html.escape(board.name)}'>{title}</h2><p>{html.escape(board.question)}</p>")
        parts.append(f"<img alt='{title}' src='data:image/png;base64,{image}'>")
        answers = "".join(
            f"<dt>{html.escape(panel.title)}</dt><dd>{html.escape(panel.question)}</dd>" for panel in board.panels
        )
        parts.append(f"<details><summary>What each panel answers</summary><dl>{answers}</dl></details>")
    return "\n".join(parts) + "\n"
