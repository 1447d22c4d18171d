"""`support-bundle`: what somebody else needs to find a fault, in one archive without secrets."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 (typer reads it)
from typing import Annotated

import typer

from ops.project import current_project
from ops.screen import report
from ops.support import bundle


def support_bundle(
    output: Annotated[
        Path | None,
        typer.Option(help="The archive's path. Default: reports/airflow-ha-support-TIME.tar.gz.", show_default=False),
    ] = None,
    tail: Annotated[int, typer.Option(min=0, max=100_000, help="Number of last lines of each container's log.")] = 2000,
) -> None:
    """Collect logs, states, settings, versions, findings and alerts in one archive, without any secret.

    Removed are the values of all secret files, of unknown settings, of Connections and Variables, and what resembles a
    secret. While Airflow cannot list its Connections and Variables, logs are left out. Read the archive before you send
    it.

    Example: ./ops/stack support-bundle --tail 500
    """
    project = current_project()
    name = f"airflow-ha-support-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.tar.gz"
    path = output or project.root / "reports" / name
    collected = bundle.collect(project, tail, report)
    bundle.write(path, collected.members)
    for part, reason in collected.left_out.items():
        report(f"left out: {part}: {reason}")
    report(f"written: {project.shown(path)}, {path.stat().st_size / 1e6:.1f} MB, {len(collected.members)} files")
