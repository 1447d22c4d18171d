"""A run of the ML pipeline, which verifies that the stack works end to end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ops import compose
from ops.clients.airflow import connect
from ops.errors import FAILURE, StackError
from ops.project import PIPELINE
from ops.screen import report

if TYPE_CHECKING:
    from ops.clients.airflow import AirflowClient, Run
    from ops.project import Project

PIPELINE_SECONDS = 300.0
DAG_SECONDS = 120.0
PIPELINE_PATH = ("gateway", "api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker")
"""The services that a pipeline run goes through: a run that is older than one of them proves nothing."""


def verify_pipeline(project: Project, settings: dict[str, str]) -> None:
    """Sees that a run of the pipeline has succeeded on the containers that run now, starting one if none has.

    Raises:
        StackError: It failed.
    """
    api = connect(project, settings, report)
    found = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    newest = max(instance.created for service in PIPELINE_PATH for instance in found[service])
    run = api.newest_success(PIPELINE)
    if run is None or run.started < newest:
        deadline = time.monotonic() + DAG_SECONDS
        while not api.has_dag(PIPELINE):
            if time.monotonic() > deadline:
                raise StackError(
                    f"Airflow has not found {PIPELINE} in {DAG_SECONDS:.0f} s",
                    where="dags/",
                    hint="./ops/stack status shows DAG files that do not import; ./ops/stack logs dag-processor",
                    code=FAILURE,
                )
            report(f"waiting for {PIPELINE} to be read")
            time.sleep(2)
        run = api.wait_for(api.trigger(PIPELINE), report, timeout=PIPELINE_SECONDS)
    if run.state != "success":
        raise failed_run_error(api, run)
    result = api.result(run, "report_result")
    told = f": {result['model']}, accuracy {result['accuracy']:.4f}" if isinstance(result, dict) else ""
    report(f"{PIPELINE} has succeeded{told}")


def failed_run_error(api: AirflowClient, run: Run) -> StackError:
    """The error for a run that failed, with the names of its failed tasks."""
    tasks = [name for name, state in api.task_states(run) if state == "failed"]
    return StackError(
        f"the run of {run.dag_id} failed, in {', '.join(tasks) or 'no task of its own'}",
        where=api.run_url(run),
        hint="open it and read the log of the task",
        code=FAILURE,
    )
