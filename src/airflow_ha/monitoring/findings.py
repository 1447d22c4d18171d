"""What a check can find: each is one alert, under the name of a runbook."""

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
"""Every name that a finding can have; each has its page in alerting/runbooks."""

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
    """Something that is wrong.

    Attributes:
        alertname: one of ALERT_NAMES.
        team: whose it is.
        summary: one line with the figure.
        description: the figures, and what they mean.
        dashboard: the uid of the dashboard that shows it.
        labels: what tells it from others of its name; the same at every check, so never a run.
        run_url: the page in Airflow that shows it, as a path.
    """

    alertname: str
    team: Team
    summary: str
    description: str
    dashboard: str
    labels: Mapping[str, str] = field(default_factory=dict)
    run_url: str | None = None


def dag_page(dag_id: str) -> str:
    """The path of a DAG's page."""
    return f"/dags/{quote(dag_id, safe='')}"


def run_page(dag_id: str, run_id: str) -> str:
    """The path of a run's page."""
    return f"{dag_page(dag_id)}/runs/{quote(run_id, safe='')}"


def task_page(dag_id: str, run_id: str, task_id: str) -> str:
    """The path of a task's page in a run."""
    return f"{run_page(dag_id, run_id)}/tasks/{quote(task_id, safe='')}"
