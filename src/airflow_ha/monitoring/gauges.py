"""The gauges that a check exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.monitoring import checks
from airflow_ha.monitoring.check_state import overdue_dags
from airflow_ha.telemetry.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_ha.monitoring.check_state import CheckState
    from airflow_ha.monitoring.findings import Finding
    from airflow_ha.monitoring.observations import Observations

LAST_SUCCESS = "airflow_ha_monitoring_last_success_timestamp_seconds"
"""Unix time of the last check that delivered its alerts."""

OLDEST_QUEUED = "airflow_ha_oldest_queued_task_seconds"
"""Age of the oldest queued task; 0 if no task is queued."""

DAG_OVERDUE = "airflow_ha_dag_overdue_seconds"
"""By dag_id: seconds past the due time; 0 if the DAG is not overdue, or was not at the previous check. It covers
unpaused DAGs with a schedule. A DAG that is no longer among them gets one 0, because a backend keeps the last value."""

DAG_FAILURE_RATIO = "airflow_ha_dag_run_failure_ratio"
"""By dag_id: the share of its ended runs that failed, for DAGs with ended runs."""

FAILURE_RATIO = "airflow_ha_failure_ratio"
"""The share of all ended runs that failed."""

FINDINGS = "airflow_ha_monitoring_findings"
"""By alertname: the number of findings, 0 included."""


def measurements(
    observed: Observations, before: CheckState, state: CheckState, findings: Iterable[Finding]
) -> Iterator[Measurement]:
    """Yield all measurements except LAST_SUCCESS.

    Args:
        observed: this check's observations.
        before: the state after the previous check.
        state: the state after this check.
        findings: of this check.
    """
    yield Measurement(OLDEST_QUEUED, checks.oldest_queued(observed, state))
    yield Measurement(FAILURE_RATIO, observed.all_runs.failure_ratio)
    removed = overdue_dags(before.conditions) - {dag.dag_id for dag in observed.due}
    for dag_id, seconds in (dict.fromkeys(sorted(removed), 0.0) | checks.seconds_overdue(observed, state)).items():
        yield Measurement(DAG_OVERDUE, seconds, {"dag_id": dag_id})
    for dag_id in sorted(observed.healthy_dags):
        yield Measurement(DAG_FAILURE_RATIO, 0.0, {"dag_id": dag_id})
    for dag_id, runs in observed.runs.items():
        yield Measurement(DAG_FAILURE_RATIO, runs.failure_ratio, {"dag_id": dag_id})
    for alertname, count in checks.counts(findings).items():
        yield Measurement(FINDINGS, count, {"alertname": alertname})
