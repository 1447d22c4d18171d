"""A run of the ML pipeline, which verifies that the stack works end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import compose
from ops.clients.airflow import connect
from ops.errors import FAILURE, StackError
from ops.project import PIPELINE
from ops.screen import report
from ops.waiting import wait

if TYPE_CHECKING:
    from ops.clients.airflow import AirflowClient, Run
    from ops.project import Project

PIPELINE_SECONDS = 300.0
DAG_SECONDS = 120.0
POLL_SECONDS = 2.0
PIPELINE_PATH = ("gateway", "api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker")
"""The services that a pipeline run passes through: only a run that is newer than all of them verifies them."""


def verify_pipeline(project: Project, settings: dict[str, str]) -> None:
    """Verify that a pipeline run has succeeded on the current containers; trigger a run if none has.

    Raises:
        StackError: Airflow does not parse the DAG, or the run failed.
    """
    api = connect(project, settings, report)
    by_service = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    newest_container = max(instance.created for service in PIPELINE_PATH for instance in by_service[service])
    run = api.newest_success(PIPELINE)
    if run is None or run.started < newest_container:
        run_pipeline(api)
    else:
        report_result(api, run)


def run_pipeline(api: AirflowClient) -> None:
    """Run the pipeline once Airflow has parsed it. A paused one is reported and not run.

    Raises:
        StackError: Airflow does not parse the DAG, or the run failed.
    """
    wait(
        lambda: api.has_dag(PIPELINE),
        DAG_SECONDS,
        f"Airflow has parsed {PIPELINE}",
        report,
        hint="run ./ops/stack status for import errors in dags/, then ./ops/stack logs dag-processor",
        poll_seconds=POLL_SECONDS,
    )
    if api.is_paused(PIPELINE):
        # Its run would wait, and start by surprise later: after a restore DAGs are held.
        report(f"{PIPELINE} is paused, so no run verifies the stack; ./ops/stack restore show lists held DAGs")
        return
    report_result(api, api.wait_for(api.trigger(PIPELINE), report, timeout=PIPELINE_SECONDS))


def report_result(api: AirflowClient, run: Run) -> None:
    """Report what a run of the pipeline has made.

    Raises:
        StackError: It failed.
    """
    if run.state != "success":
        raise failed_run_error(api, run)
    result = api.result(run, "report_result")
    model = f": {result['model']}, accuracy {result['accuracy']:.4f}" if isinstance(result, dict) else ""
    report(f"{PIPELINE} has succeeded{model}")


def failed_run_error(api: AirflowClient, run: Run) -> StackError:
    """Return the error of a failed run, with the names of its failed tasks."""
    failed_tasks = [name for name, state in api.task_states(run) if state == "failed"]
    return StackError(
        f"cannot complete the run of {run.dag_id}: it failed in {', '.join(failed_tasks) or 'no task of its own'}",
        where=api.run_url(run),
        hint="open the run and read the log of the task",
        code=FAILURE,
    )
