"""What a check measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.monitoring import checks
from airflow_ha.monitoring.check_state import overdue_dags
from airflow_ha.telemetry.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_ha.monitoring.check_state import Memory
    from airflow_ha.monitoring.findings import Finding
    from airflow_ha.monitoring.observations import Observations

LAST_SUCCESS = "airflow_ha_monitoring_last_success_timestamp_seconds"
"""Unix time of the last complete check, its alerts delivered."""

OLDEST_QUEUED = "airflow_ha_oldest_queued_task_seconds"
"""How long the oldest queued task has been queued, 0 when none is."""

DAG_OVERDUE = "airflow_ha_dag_overdue_seconds"
"""By dag_id: how long it is past its due time, 0 when it is not, or was not at the check before. DAGs that are on and
have a schedule; 0 once for one that no longer is: whoever keeps the last value keeps that."""

DAG_FAILURE_RATIO = "airflow_ha_dag_run_failure_ratio"
"""By dag_id: the share of its ended runs that failed. DAGs with ended runs."""

FAILURE_RATIO = "airflow_ha_failure_ratio"
"""The share of all ended runs that failed."""

FINDINGS = "airflow_ha_monitoring_findings"
"""By alertname: how many findings there are, 0 for those that there are none of."""


def measured(seen: Observations, before: Memory, memory: Memory, found: Iterable[Finding]) -> Iterator[Measurement]:
    """Yield everything but that the check is complete.

    Args:
        seen: what the check saw.
        before: what the check before remembered.
        memory: what this check remembers.
        found: its findings.
    """
    yield Measurement(OLDEST_QUEUED, checks.oldest_queued(seen, memory))
    yield Measurement(FAILURE_RATIO, seen.all_runs.failure_ratio)
    gone = overdue_dags(before.seen) - {dag.dag_id for dag in seen.due}
    for dag_id, late in (dict.fromkeys(sorted(gone), 0.0) | checks.overdue_for(seen, memory)).items():
        yield Measurement(DAG_OVERDUE, late, {"dag_id": dag_id})
    for dag_id in sorted(seen.well):
        yield Measurement(DAG_FAILURE_RATIO, 0.0, {"dag_id": dag_id})
    for dag_id, runs in seen.runs.items():
        yield Measurement(DAG_FAILURE_RATIO, runs.failure_ratio, {"dag_id": dag_id})
    for alertname, count in checks.counts(found).items():
        yield Measurement(FINDINGS, count, {"alertname": alertname})
