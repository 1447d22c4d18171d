"""Looks at Airflow once a minute, through its REST API, and tells what is wrong: to the Alertmanagers and as gauges.

What it finds are failing DAGs and tasks, DAGs past their due time, tasks that nobody takes, full pools and workers,
components without heartbeat and files that do not import. The work, and when something counts, is in
`airflow_ha.monitoring`. Its own silence is an alert of Prometheus': `AirflowMonitoringStale`.
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
    # Longer than it takes to find a dead worker and run again, shorter than what is told lasts.
    dagrun_timeout=timedelta(minutes=3),
    is_paused_upon_creation=False,
    tags=["monitoring"],
    default_args={"owner": "platform-team", "retries": 1, "retry_delay": timedelta(seconds=5)},
    doc_md=__doc__,
)
def monitoring() -> None:
    """One task: each costs a process, and what one check sees is one picture."""

    # Ahead of the work that it watches.
    @task(execution_timeout=timedelta(seconds=50), priority_weight=100)
    def check() -> dict[str, int]:
        # Here and not above: it takes a good part of a second of CPU, which parsing this file every 30 s must not.
        from airflow_ha.monitoring.check_run import check_airflow

        return check_airflow()

    check()


monitoring()
