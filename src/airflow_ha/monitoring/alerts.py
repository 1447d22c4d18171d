"""Findings as alerts of Alertmanager.

The labels identify an alert, so they are equal at every check; a run differs each time and is an annotation. Each alert
expires after five intervals, so four checks may fail before it resolves by mistake. A resolved alert is sent once more
with its end time. https://prometheus.io/docs/alerting/latest/alerts_api/
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_ha.monitoring.check_state import SentAlert
from airflow_ha.monitoring.findings import DEPENDS_ON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from airflow_ha.monitoring.findings import Finding

INTERVAL = timedelta(minutes=1)
"""Time between two checks."""

LIFETIME = 5 * INTERVAL
"""Time until an alert expires that no check repeats."""

RESOLVED_RETENTION = timedelta(days=1)
"""How long a resolved alert is kept for an unreachable Alertmanager, which itself drops the firing alert sooner."""

SOURCE = "monitoring_dag"
SEVERITY = "ticket"

Key = frozenset[tuple[str, str]]


def key(labels: Mapping[str, str]) -> Key:
    """Return the identity of an alert."""
    return frozenset(labels.items())


def labels_of(finding: Finding) -> dict[str, str]:
    """Return a finding's labels and those that all alerts have."""
    return {
        "alertname": finding.alertname,
        "severity": SEVERITY,
        "team": finding.team,
        "source": SOURCE,
        **({"depends_on": DEPENDS_ON[finding.alertname]} if finding.alertname in DEPENDS_ON else {}),
        **finding.labels,
    }


def annotations_of(finding: Finding) -> dict[str, str]:
    """Return a finding's annotations. Links are paths: the message template adds their base URLs."""
    annotations = {
        "summary": finding.summary,
        "description": finding.description,
        "runbook_url": f"alerting/runbooks/{finding.alertname}.md",
        "dashboard_url": f"/d/{finding.dashboard}",
    }
    return annotations | ({"run_url": finding.run_url} if finding.run_url else {})


def alerts_to_send(
    findings: Iterable[Finding], before: Iterable[SentAlert], alertmanagers: Iterable[str], at: datetime
) -> list[SentAlert]:
    """Return the firing alerts, and the resolved ones that an Alertmanager has not received yet.

    Args:
        findings: of this check.
        before: the alerts that the previous check kept.
        alertmanagers: their URLs.
        at: the time of this check.
    """
    known = {key(alert.labels): alert for alert in before}
    firing: dict[Key, SentAlert] = {}
    for finding in findings:
        labels = labels_of(finding)
        earlier = known.get(key(labels))
        starts_at = earlier.starts_at if earlier and earlier.ended_at is None else at
        firing[key(labels)] = SentAlert(labels, annotations_of(finding), starts_at)
    every_url = frozenset(alertmanagers)
    resolved = [
        SentAlert(
            alert.labels,
            alert.annotations,
            alert.starts_at,
            alert.ended_at or at,
            every_url if alert.ended_at is None else alert.pending & every_url,
        )
        for identity, alert in known.items()
        if identity not in firing
    ]
    return [
        *firing.values(),
        *(alert for alert in resolved if alert.pending and at - (alert.ended_at or at) < RESOLVED_RETENTION),
    ]


def alerts_to_keep(alerts: Iterable[SentAlert], received_by: Iterable[str]) -> tuple[SentAlert, ...]:
    """Return the alerts that the next check needs: firing ones, and resolved ones that an Alertmanager has missed."""
    reached = frozenset(received_by)
    updated = (
        alert
        if alert.ended_at is None
        else SentAlert(alert.labels, alert.annotations, alert.starts_at, alert.ended_at, alert.pending - reached)
        for alert in alerts
    )
    return tuple(alert for alert in updated if alert.ended_at is None or alert.pending)


def payload(
    alerts: Iterable[SentAlert], alertmanager: str, active: Iterable[SentAlert], at: datetime
) -> list[dict[str, Any]]:
    """Return the alerts for one Alertmanager.

    Args:
        alerts: the alerts to send.
        alertmanager: its URL.
        active: our alerts that it holds; those that are not in `alerts` are resolved.
        at: the time of this check.
    """
    alerts = list(alerts)
    known = {key(alert.labels) for alert in alerts}
    stray = [alert for alert in active if key(alert.labels) not in known]
    return [
        *(
            api_alert(alert, alert.ended_at or at + LIFETIME)
            for alert in alerts
            if alert.ended_at is None or alertmanager in alert.pending
        ),
        *(api_alert(alert, at) for alert in stray),
    ]


def api_alert(alert: SentAlert, ends_at: datetime) -> dict[str, Any]:
    """Return an alert in the form of Alertmanager's API v2."""
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        # Alertmanager refuses an end before the start, and the clocks of two machines may differ.
        "startsAt": min(alert.starts_at, ends_at).isoformat(),
        "endsAt": ends_at.isoformat(),
    }
