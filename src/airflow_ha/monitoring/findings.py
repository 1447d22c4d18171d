"""Findings of a check: each becomes one alert and has a runbook under its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

Team = Literal["platform", "data"]

COMPONENT_DOWN = "AirflowComponentDown"
DAG_OVERDUE = "AirflowDagOverdue"
DAG_RUNS_FAILING = "AirflowDagRunsFailing"
FAILURE_RATE_HIGH = "AirflowFailureRateHigh"
IMPORT_ERRORS = "AirflowImportErrors"
MISCONFIGURED = "AirflowMonitoringMisconfigured"
POOL_STARVING = "AirflowPoolStarving"
QUEUED_TOO_LONG = "AirflowQueuedTooLong"
TASKS_UNSCHEDULABLE = "AirflowTasksUnschedulable"
WORKERS_FULL = "AirflowWorkersFull"

ALERT_NAMES = (
    COMPONENT_DOWN,
    DAG_OVERDUE,
    DAG_RUNS_FAILING,
    FAILURE_RATE_HIGH,
    IMPORT_ERRORS,
    MISCONFIGURED,
    POOL_STARVING,
    QUEUED_TOO_LONG,
    TASKS_UNSCHEDULABLE,
    WORKERS_FULL,
)
"""All alert names of findings; each has a runbook in alerting/runbooks."""

OVERVIEW = "airflow-overview"
DAGS = "airflow-dags-and-tasks"
WORKERS = "airflow-schedulers-and-workers"

_TASK_PATH = "postgres, redis, gateway, task-execution"

DEPENDS_ON = {
    COMPONENT_DOWN: "postgres",
    DAG_OVERDUE: f"{_TASK_PATH}, queue-consumption",
    DAG_RUNS_FAILING: _TASK_PATH,
    FAILURE_RATE_HIGH: _TASK_PATH,
    IMPORT_ERRORS: "postgres",
    POOL_STARVING: _TASK_PATH,
    QUEUED_TOO_LONG: f"{_TASK_PATH}, queue-consumption, statsd-exporter",
    WORKERS_FULL: f"{_TASK_PATH}, queue-consumption",
}
"""The label `depends_on` of each alert, as in its rule: the causes that inhibit it (alertmanager.yaml)."""


@dataclass(frozen=True)
class Finding:
    """A problem that a check found.

    Attributes:
        alertname: one of ALERT_NAMES.
        team: the owner.
        summary: object, state and value, in one line.
        description: the impact, then the likely cause and the figures.
        dashboard: uid of the dashboard that shows the problem.
        labels: identify the finding among those of its name; equal at every check, so never a run.
        run_url: path of the page in Airflow that shows the problem.
    """

    alertname: str
    team: Team
    summary: str
    description: str
    dashboard: str
    labels: Mapping[str, str] = field(default_factory=dict)
    run_url: str | None = None


def dag_page(dag_id: str) -> str:
    """Return the path of a DAG's page."""
    return f"/dags/{quote(dag_id, safe='')}"


def run_page(dag_id: str, run_id: str) -> str:
    """Return the path of a run's page."""
    return f"{dag_page(dag_id)}/runs/{quote(run_id, safe='')}"
