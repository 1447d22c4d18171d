"""`trigger`: start a DAG run, and optionally wait for its result."""

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
    """Return the configuration of a DAG run.

    Raises:
        StackError: The text is not a JSON object; the error states the position.
    """
    try:
        conf = json.loads(text)
    except json.JSONDecodeError as error:
        raise StackError(
            f"cannot read --conf: not JSON: {error.msg}",
            where=f"line {error.lineno}, column {error.colno}: …{text[max(0, error.pos - 10) : error.pos + 10]}…",
            hint="""write for example --conf '{"source": "digits"}'""",
        ) from error
    if not isinstance(conf, dict):
        raise StackError(
            f"cannot read --conf: expected a JSON object, not a JSON {type(conf).__name__}",
            hint="""write for example --conf '{"source": "digits"}'""",
        )
    return conf


def trigger(
    dag: Annotated[str, typer.Argument(help="Id of the DAG.")],
    conf: Annotated[str, typer.Option(metavar="JSON", help="Configuration of the run.")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Exit only when the run ends, with 1 if it failed.")] = False,
) -> None:
    """Start a run of a DAG; unpause the DAG if it is paused.

    Example: ./ops/stack trigger ml_pipeline_dag --conf '{"source": "digits"}' --wait
    """
    project = current_project()
    configuration = parse_conf(conf)
    api = connect(project, running_settings(project), report)
    run = api.trigger(dag, configuration)
    report(f"{run.run_id}: {api.run_url(run)}")
    if not wait:
        return
    with when_interrupted(f"open {api.run_url(run)}: the run continues"):
        ended = api.wait_for(run, report, timeout=WAIT_SECONDS)
    if ended.state != "success":
        raise failed_run_error(api, ended)
    report(f"success, in {ended.duration or 0:.1f} s")
