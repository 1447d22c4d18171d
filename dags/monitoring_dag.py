"""Check Airflow once a minute through its REST API, and send findings to the Alertmanagers and as gauges.

A finding is a failing or overdue DAG, a task that no worker takes, a full pool, full workers, a component without
heartbeat, or a file that does not import. `airflow_ha.monitoring` holds the checks and their thresholds.
If this DAG itself stops, Prometheus raises `AirflowMonitoringStale`.
"""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task


@dag(
    dag_id="monitoring_dag",
    schedule="* * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    # Longer than the detection of a dead worker plus a retry, shorter than an alert's lifetime (5 min).
    dagrun_timeout=timedelta(minutes=3),
    is_paused_upon_creation=False,
    tags=["monitoring"],
    default_args={"owner": "platform-team", "retries": 1, "retry_delay": timedelta(seconds=5)},
    doc_md=__doc__,
)
def monitoring() -> None:
    """Run one task: a task costs a process, and one check needs one consistent snapshot."""

    # The highest priority: monitoring runs ahead of the work that it monitors.
    @task(execution_timeout=timedelta(seconds=50), priority_weight=100)
    def check() -> dict[str, int]:
        # The import takes a good part of a second of CPU, and the dag-processor parses this file every 30 s.
        from airflow_ha.monitoring.check_run import check_airflow

        return check_airflow()

    check()


monitoring()
