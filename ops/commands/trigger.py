"""`trigger`: start a run of a DAG, and see how it ends."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ops.clients.airflow import connect
from ops.compose import running_settings
from ops.errors import StackError, when_interrupted
from ops.pipeline import failed_run_error
from ops.project import current_project
from ops.screen import report

WAIT_SECONDS = 24 * 3600.0


def parse_conf(text: str) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        StackError: It is not a JSON object; with the place of the mistake.
    """
    try:
        conf = json.loads(text)
    except json.JSONDecodeError as error:
        raise StackError(
            f"--conf is not JSON: {error.msg}",
            where=f"line {error.lineno}, column {error.colno}: …{text[max(0, error.pos - 10) : error.pos + 10]}…",
            hint="""for instance: --conf '{"source": "digits"}'""",
        ) from error
    if not isinstance(conf, dict):
        raise StackError(
            f"--conf is a JSON {type(conf).__name__}, not an object", hint="""for instance: --conf '{"a": 1}'"""
        )
    return conf


def trigger(
    dag: Annotated[str, typer.Argument(help="The DAG's id.")],
    conf: Annotated[str, typer.Option(metavar="JSON", help="The run's configuration.")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the run to end; exit with 1 if it fails.")] = False,
) -> None:
    """Start a run of a DAG; one that is paused is taken out of its pause."""
    project = current_project()
    configuration = parse_conf(conf)
    api = connect(project, running_settings(project), report)
    run = api.trigger(dag, configuration)
    report(f"{run.run_id}: {api.run_url(run)}")
    if not wait:
        return
    with when_interrupted("nothing: the run goes on, it is only no longer waited for"):
        ended = api.wait_for(run, report, timeout=WAIT_SECONDS)
    if ended.state != "success":
        raise failed_run_error(api, ended)
    report(f"success, in {ended.duration or 0:.1f} s")
