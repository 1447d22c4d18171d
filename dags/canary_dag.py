"""One tiny task a minute through scheduler, broker, worker, Execution API and database.

What it returns is how late it ran: alerts on the platform's latency stand on it.
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
    # Longer than it takes to find a dead worker and run again, so that one fault is one late canary.
    dagrun_timeout=timedelta(minutes=4),
    is_paused_upon_creation=False,
    tags=["canary", "monitoring"],
    default_args={"owner": "platform-team", "retries": 2, "retry_delay": timedelta(seconds=5)},
    doc_md=__doc__,
)
def canary() -> None:
    """Measure the time from when a run was due to when its task runs."""

    @task(execution_timeout=timedelta(seconds=30))
    def measure_latency(dag_run: Any) -> float:
        latency: float = (datetime.now(UTC) - dag_run.run_after).total_seconds()
        # Here and not above: it takes half a second of CPU, which parsing this file every 30 s must not.
        from airflow_ha.telemetry.otel import record_gauge

        record_gauge("airflow_ha_canary_latency_seconds", latency)
        log.info("canary latency_seconds=%.3f run_after=%s", latency, dag_run.run_after.isoformat())
        return latency

    measure_latency()


canary()
