"""`dashboards`: where they are, or the same as pictures where Grafana cannot be had."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path  # noqa: TC003 (typer reads it)
from typing import Annotated

import typer

from ops import settings_file
from ops.clients.prometheus import Prometheus
from ops.errors import StackError
from ops.observability.metric_contract import DASHBOARDS
from ops.project import current_project
from ops.screen import console, escape, report
from ops.services import local_url, page_urls

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_range(text: str) -> float:
    """`30m`, `6h` or `2d` as seconds.

    Raises:
        StackError: It is not of that form.
    """
    found = re.fullmatch(r"([1-9]\d*)([mhd])", text)
    if not found:
        raise StackError(f"{text!r} is not a range", hint="for instance: 30m, 6h or 2d")
    return float(found[1]) * UNITS[found[2]]


def dashboards(
    render: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw them into this folder: index.html and a PNG each.")
    ] = None,
    since: Annotated[str, typer.Option("--range", metavar="RANGE", help="The time that is drawn, up to now.")] = "1h",
) -> None:
    """List the dashboards with their links; or ask Prometheus every panel's query, and draw them without Grafana."""
    project = current_project()
    settings = settings_file.read(project)
    pages = page_urls(settings)
    folder = project.root / DASHBOARDS
    if render is None:
        for path in sorted(folder.glob("*.json")):
            board = json.loads(path.read_text(encoding="utf-8"))
            link = f"{pages['grafana']}/d/{board['uid']}" if "grafana" in pages else "no Grafana here: use --render"
            console.print(
                f"[bold]{escape(board['title'])}[/]  {link}\n  {escape(board['description'])}", soft_wrap=True
            )
        return
    seconds = parse_range(since)
    if "prometheus" not in pages:
        raise StackError("there is no Prometheus to ask", hint="./ops/stack up --profile observability and the others")

    from ops.dashboards.query_results import Span
    from ops.dashboards.render import render as draw
    from ops.dashboards.render import wrongly_empty

    now = time.time()
    server = Prometheus(local_url(settings, "prometheus"))
    boards = draw(server, folder, render, Span(now - seconds, now))
    for name, queries in wrongly_empty(boards).items():
        report(f"empty: {name}: {'; '.join(queries)}")
    report(f"{len(boards)} dashboards drawn: {render / 'index.html'}")
