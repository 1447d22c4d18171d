"""The panels that show nothing while nothing is wrong; every other one without data is a fault of ours."""

from __future__ import annotations

from typing import Final

RIGHTLY_EMPTY: Final = {
    ("airflow-overview", "Failed attempts a minute, by DAG"): "only while attempts fail",
    ("airflow-dags-and-tasks", "Failed attempts, by task"): "only when attempts failed in the chosen time",
    ("airflow-dags-and-tasks", "Share of attempts that fail, by task"): "only tasks that failed in an hour",
    ("airflow-schedulers-and-workers", "Tasks that a full pool starves"): "only while a pool is full",
}
"""By the dashboard's uid and the panel's title: when there is something to see."""
