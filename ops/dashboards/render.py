"""Render the dashboards without Grafana: one HTML page, and a PNG for each dashboard.

The input is Grafana's JSON (generated/) and a running Prometheus. CI keeps the result of each run.
"""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ops.dashboards.expected_empty import EXPECTED_EMPTY
from ops.dashboards.query_results import Board, DrawnPanel, Span, query

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ops.clients.prometheus import Prometheus


def read_boards(folder: Path, server: Prometheus, span: Span) -> tuple[Board, ...]:
    """Run the queries of all dashboards.

    Args:
        folder: Folder of Grafana's JSON files.
        server: The Prometheus server.
        span: The time range.

    Raises:
        StackError: Prometheus did not respond, or refused a query.
    """
    documents = ((path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json")))
    return tuple(
        Board(
            name,
            document["uid"],
            document["title"],
            document["description"],
            tuple(_query_panel(panel, document["uid"], server, span) for panel in document["panels"]),
        )
        for name, document in documents
    )


def _query_panel(panel: dict[str, Any], uid: str, server: Prometheus, span: Span) -> DrawnPanel:
    if panel.get("interval"):
        span = replace(span, minimum_step=60 * float(panel["interval"].removesuffix("m")))
    results = {
        target["expr"]: query(
            server, target["expr"], target.get("legendFormat", ""), span, instant=bool(target.get("instant"))
        )
        for target in panel["targets"]
    }
    defaults, position = panel["fieldConfig"]["defaults"], panel["gridPos"]
    value_texts = {
        float(value): (option["text"], option["color"])
        for mapping in defaults.get("mappings", [])
        for value, option in mapping["options"].items()
    }
    return DrawnPanel(
        title=panel["title"],
        question=panel["description"],
        kind=panel["type"],
        unit=defaults["unit"],
        steps=tuple((step["value"], step["color"]) for step in defaults["thresholds"]["steps"]),
        value_texts=tuple(value_texts.items()),
        maximum=defaults.get("max"),
        is_stacked=defaults.get("custom", {}).get("drawStyle") == "bars",
        has_names=panel["options"].get("textMode") == "value_and_name",
        left=position["x"],
        top=position["y"],
        width=position["w"],
        height=position["h"],
        step=span.step,
        series=tuple(series for result in results.values() for series in result),
        missing=tuple(expression for expression, result in results.items() if not result),
        empty_reason=EXPECTED_EMPTY.get((uid, panel["title"]), ""),
    )


def unexpectedly_empty(boards: Iterable[Board]) -> dict[str, tuple[str, ...]]:
    """Return the expressions without a result, by dashboard and panel, except for panels that may be empty."""
    return {
        f"{board.title}: {panel.title}": panel.missing
        for board in boards
        for panel in board.panels
        if panel.missing and not panel.empty_reason
    }


def render(server: Prometheus, folder: Path, out: Path, span: Span) -> tuple[Board, ...]:
    """Write `<name>.png` for every dashboard, and the self-contained `index.html` with all of them.

    Args:
        server: The Prometheus server.
        folder: Folder of Grafana's JSON files.
        out: Output folder; created if it does not exist.
        span: The time range.

    Returns:
        The dashboards with their query results; see `unexpectedly_empty`.

    Raises:
        StackError: Prometheus did not respond, or refused a query.
        OSError: A file cannot be written.
    """
    from ops.dashboards.draw import draw_board  # imports matplotlib, which takes a second

    out.mkdir(parents=True, exist_ok=True)
    boards = read_boards(folder, server, span)
    pictures = {}
    for board in boards:
        image = io.BytesIO()
        draw_board(board, span).savefig(image, format="png", dpi=90)
        pictures[board.name] = image.getvalue()
        (out / f"{board.name}.png").write_bytes(image.getvalue())
    (out / "index.html").write_text(html_page(boards, pictures), encoding="utf-8")
    return boards


def html_page(boards: Iterable[Board], pictures: dict[str, bytes]) -> str:
    """Return an HTML page with all pictures, and the questions that the panels answer.

    Args:
        boards: The dashboards.
        pictures: PNG files by the dashboard's name.
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
        questions = "".join(
            f"<dt>{html.escape(panel.title)}</dt><dd>{html.escape(panel.question)}</dd>" for panel in board.panels
        )
        parts.append(f"<details><summary>The questions of each panel</summary><dl>{questions}</dl></details>")
    return "\n".join(parts) + "\n"
