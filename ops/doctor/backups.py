"""Whether the backups can be restored: what their service reports of the verifications."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ops import data_tier
from ops.doctor.finding import Finding, Urgency
from ops.services import BACKUP_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.doctor.finding import Examined

DAY: Final = 86400.0
FAILED: Final = "airflow_ha_backup_verification_failed"
SINCE: Final = "airflow_ha_backup_unverified_since_timestamp_seconds"
INTERVAL: Final = "airflow_ha_backup_verification_interval_seconds"
# The image has no curl.
READ: Final = (
    "python3",
    "-c",
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9854/metrics', timeout=4).read().decode())",
)


def gather(examined: Examined) -> dict[str, float]:
    """Return the metrics of the backup service beside the primary; empty without the profile `backup`."""
    metrics: dict[str, float] = {}
    for service in (service for nodes in BACKUP_NODES.values() for service in nodes):
        if container := examined.container(service):
            lines = (data_tier.ask(container, *READ) or "").splitlines()
            metrics |= {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line)}
    return metrics


def verification(metrics: Mapping[str, float]) -> Iterator[Finding]:
    """Yield a finding for each storage whose last verification failed, or that has none since two intervals."""
    for storage, failed in by_storage(metrics, FAILED).items():
        if failed:
            fix = "read alerting/runbooks/BackupVerificationFailed.md"
            value = f"the last verification in {storage} failed"
            yield Finding(Urgency.URGENT, "backups", "may not restore", value, fix)
    intervals = by_storage(metrics, INTERVAL)
    for storage, since in by_storage(metrics, SINCE).items():
        age = time.time() - since
        if age > 2 * intervals[storage]:
            value = f"no verified restore from {storage} for {age / DAY:.0f} days"
            yield Finding(Urgency.SOON, "backups", "not verified", value, f"./ops/stack backup verify --from {storage}")


def by_storage(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """Return the value of a metric for each storage."""
    labelled = {series.partition("{")[::2]: value for series, value in metrics.items()}
    return {labels.split('"')[1]: value for (metric, labels), value in labelled.items() if metric == name}
