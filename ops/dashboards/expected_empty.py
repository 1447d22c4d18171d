"""The panels that are empty in normal operation; any other panel without data is a defect."""

from __future__ import annotations

from typing import Final

EXPECTED_EMPTY: Final = {
    ("airflow-overview", "Failed tries a minute, by DAG"): "only while tries fail",
    ("airflow-data-tier", "Maintenance: removed a day"): "only after something old was removed",
    ("airflow-data-tier", "Backups: since the last one"): "only with the profile backup",
    ("airflow-data-tier", "Backups: since the last verified restore"): "only with the profile backup",
    ("airflow-data-tier", "Backups: lag of the archive"): "only with the profile backup",
    ("airflow-data-tier", "Backups: size in the repository"): "only with the profile backup",
    ("airflow-dags-and-tasks", "Failed tries, by task"): "only if tries failed in the selected time",
    ("airflow-dags-and-tasks", "Failure rate, by task"): "only tasks that failed in the last hour",
    ("airflow-schedulers-and-workers", "Tasks starved by a full pool"): "only while a pool is full",
}
"""When the panel has data, by the dashboard's uid and the panel's title."""
