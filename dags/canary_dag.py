"""Run one tiny task a minute through scheduler, broker, worker, Execution API and database.

The task returns its latency in seconds. The alerts on the platform's latency use this value.
"""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.sdk import dag, task

log = logging.getLogger(__name__)


@dag(
    dag_id="canary_dag",
    schedule="* * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    # Longer than the detection of a dead worker plus a retry: one fault makes one canary late, not several.
    dagrun_timeout=timedelta(minutes=4),
    is_paused_upon_creation=False,
    tags=["canary", "monitoring"],
    default_args={"owner": "platform-team", "retries": 2, "retry_delay": timedelta(seconds=5)},
    doc_md=__doc__,
)
def canary() -> None:
    """Measure the time from the run's due time to the start of its task."""

    @task(execution_timeout=timedelta(seconds=30))
    def measure_latency(dag_run: Any) -> float:
        latency: float = (datetime.now(UTC) - dag_run.run_after).total_seconds()
        # The import takes 0.5 s of CPU, and the dag-processor parses this file every 30 s.
        from airflow_ha.telemetry.otel import record_gauge

        record_gauge("airflow_ha_canary_latency_seconds", latency)
        log.info("canary latency_seconds=%.3f run_after=%s", latency, dag_run.run_after.isoformat())
        return latency

    measure_latency()


canary()
