"""Whether backups are made and can be restored: what their services report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops import backup_storage
from ops.backup import service_page
from ops.doctor.finding import Finding, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.doctor.finding import Examined

DAY: Final = 86400.0
LAG_SECONDS: Final = 300.0
"""As the alert BackupArchiveLags."""
USABLE: Final = "airflow_ha_backup_repository_up"
LAG: Final = "airflow_ha_backup_archive_lag_seconds"
FAILED: Final = "airflow_ha_backup_verification_failed"
SINCE: Final = "airflow_ha_backup_unverified_since_timestamp_seconds"
INTERVAL: Final = "airflow_ha_backup_verification_interval_seconds"


@dataclass(frozen=True)
class Backups:
    """What the services report; empty without the profile `backup`.

    Attributes:
        metrics: Of the service beside the primary.
        problems: Why the last backup in a storage failed, by storage.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def gather(examined: Examined) -> Backups:
    """Return what the services report."""
    return Backups(service_page.metrics(examined.instances), service_page.problems(examined.instances))


def storages(backups: Backups) -> Iterator[Finding]:
    """Yield a finding for each storage that cannot be used: urgent unless another one has every backup and the log."""
    usable = by_storage(backups.metrics, USABLE)
    down = {storage for storage, is_up in usable.items() if not is_up}
    for storage in sorted(down | backups.problems.keys()):
        reason = backups.problems.get(storage, "its service has no reason yet")
        where, hint = backup_storage.advice(reason)
        urgency = Urgency.URGENT if storage in down and down == usable.keys() else Urgency.SOON
        state = "cannot be used" if storage in down else "get no new backup"
        fix = hint or f"read alerting/runbooks/Backup{'RepositoryDown' if storage in down else 'Fails'}.md"
        yield Finding(urgency, f"backups in {storage}", state, f"{reason}; {where}" if where else reason, fix)


def archive(backups: Backups) -> Iterator[Finding]:
    """Yield a finding if the log of Postgres waits for a storage."""
    lag = backups.metrics.get(LAG, 0.0)
    if lag > LAG_SECONDS:
        fix = "./ops/stack logs postgres (with data-ha patroni-1 patroni-2) shows why"
        yield Finding(Urgency.SOON, "log of Postgres", "waits for a storage of the backups", f"for {lag:.0f} s", fix)


def verification(backups: Backups) -> Iterator[Finding]:
    """Yield a finding for each storage whose last verification failed, or that has none since two intervals."""
    metrics = backups.metrics
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
