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
    """Yield a finding if the last verification failed, and if none has succeeded for two intervals."""
    if metrics.get("airflow_ha_backup_verification_failed"):
        fix = "read alerting/runbooks/BackupVerificationFailed.md"
        yield Finding(Urgency.URGENT, "backups", "may not restore", "the last verification failed", fix)
    now = time.time()
    age = now - metrics.get("airflow_ha_backup_unverified_since_timestamp_seconds", now)
    if age > 2 * metrics.get("airflow_ha_backup_verification_interval_seconds", age):
        value = f"no verified restore for {age / DAY:.0f} days"
        yield Finding(Urgency.SOON, "backups", "not verified", value, "./ops/stack backup verify")
