"""`dashboards`: list the dashboards, or render them as pictures without Grafana."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 (typer reads it)
from typing import TYPE_CHECKING, Annotated

import typer

from ops import settings_file
from ops.clients import prometheus
from ops.errors import StackError
from ops.observability.metric_contract import DASHBOARDS
from ops.project import current_project
from ops.screen import console, escape, report
from ops.services import page_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_range(text: str) -> float:
    """Return the seconds of a range such as `30m`, `6h` or `2d`.

    Raises:
        StackError: The range is invalid.
    """
    match = re.fullmatch(r"([1-9]\d*)([mhd])", text)
    if not match:
        raise StackError(f"cannot parse the range {text!r}", where="--range", hint="write for instance 30m, 6h or 2d")
    return float(match[1]) * UNITS[match[2]]


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Turn a failed write in a folder into the error of a command."""
    try:
        yield
    except OSError as error:
        path = error.filename or folder
        raise StackError(
            f"cannot write {path}: {error.strerror}", where="--render", hint="name a folder that you may write to"
        ) from error


def dashboards(
    render: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Render into this folder: index.html and a PNG for each dashboard."),
    ] = None,
    since: Annotated[str, typer.Option("--range", metavar="RANGE", help="Time range to render, up to now.")] = "1h",
) -> None:
    """List the dashboards with their links, or render them without Grafana.

    Example: ./ops/stack dashboards --render /tmp/dashboards --range 6h
    """
    project = current_project()
    settings = settings_file.read(project)
    pages = page_urls(settings)
    folder = project.root / DASHBOARDS
    if render is None:
        for path in sorted(folder.glob("*.json")):
            board = json.loads(path.read_text(encoding="utf-8"))
            link = (
                f"{pages['grafana']}/d/{board['uid']}" if "grafana" in pages else "Grafana does not run; use --render"
            )
            console.print(
                f"[bold]{escape(board['title'])}[/]  {link}\n  {escape(board['description'])}", soft_wrap=True
            )
        return
    seconds = parse_range(since)
    if "prometheus" not in pages:
        raise StackError(
            "cannot render the dashboards: Prometheus does not run",
            where="--render",
            hint="run ./ops/stack up --profile observability with the profiles that run now",
        )

    from ops.dashboards.query_results import Span
    from ops.dashboards.render import render as render_dashboards
    from ops.dashboards.render import unexpectedly_empty

    now = time.time()
    server = prometheus.connect(settings)
    with write_errors(render):
        boards = render_dashboards(server, folder, render, Span(now - seconds, now))
    for name, queries in unexpectedly_empty(boards).items():
        report(f"empty: {name}: {'; '.join(queries)}")
    report(f"rendered {len(boards)} dashboards: {render / 'index.html'}")
