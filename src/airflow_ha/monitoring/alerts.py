"""A finding as Alertmanager takes it.

Its labels tell it from all others, so they are the same at every check, and a run, which is another one each time, is
in an annotation. Each alert says when it ends by itself: after five intervals, so that four checks may fail before
anybody is told that all is well. One that is over is ended at once, by an alert that says so.
https://prometheus.io/docs/alerting/latest/alerts_api/
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_ha.monitoring.check_state import Told
from airflow_ha.monitoring.findings import DEPENDS_ON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from airflow_ha.monitoring.findings import Finding

INTERVAL = timedelta(minutes=1)
"""Between two checks."""

LIFETIME = 5 * INTERVAL
"""How long an alert lasts that nobody repeats."""

KEPT = timedelta(days=1)
"""How long an end is kept for an Alertmanager that is away: it forgets, sooner than that, what it was told before."""

SOURCE = "monitoring_dag"
SEVERITY = "ticket"

Key = frozenset[tuple[str, str]]


def key(labels: Mapping[str, str]) -> Key:
    """What tells an alert from all others."""
    return frozenset(labels.items())


def labels_of(finding: Finding) -> dict[str, str]:
    """A finding's labels."""
    return {
        "alertname": finding.alertname,
        "severity": SEVERITY,
        "team": finding.team,
        "source": SOURCE,
        **({"depends_on": DEPENDS_ON[finding.alertname]} if finding.alertname in DEPENDS_ON else {}),
        **finding.labels,
    }


def annotations_of(finding: Finding) -> dict[str, str]:
    """A finding's annotations. Its links are paths: who sends the message knows where each begins."""
    found = {
        "summary": finding.summary,
        "description": finding.description,
        "runbook_url": f"alerting/runbooks/{finding.alertname}.md",
        "dashboard_url": f"/d/{finding.dashboard}",
    }
    return found | ({"run_url": finding.run_url} if finding.run_url else {})


def to_tell(found: Iterable[Finding], before: Iterable[Told], alertmanagers: Iterable[str], at: datetime) -> list[Told]:
    """What is to be told now: what lasts, and every end that an Alertmanager has not taken yet.

    Args:
        found: this check's findings.
        before: what was told by the checks before.
        alertmanagers: their URLs.
        at: the time of this check.
    """
    known = {key(told.labels): told for told in before}
    lasting: dict[Key, Told] = {}
    for finding in found:
        own = labels_of(finding)
        earlier = known.get(key(own))
        starts_at = earlier.starts_at if earlier and earlier.ended_at is None else at
        lasting[key(own)] = Told(own, annotations_of(finding), starts_at)
    everyone = frozenset(alertmanagers)
    ended = [
        Told(
            told.labels,
            told.annotations,
            told.starts_at,
            told.ended_at or at,
            everyone if told.ended_at is None else told.pending & everyone,
        )
        for own, told in known.items()
        if own not in lasting
    ]
    return [*lasting.values(), *(told for told in ended if told.pending and at - (told.ended_at or at) < KEPT)]


def taken(told: Iterable[Told], by: Iterable[str]) -> tuple[Told, ...]:
    """What is still to be remembered after some Alertmanagers took it."""
    heard = frozenset(by)
    left = (
        each
        if each.ended_at is None
        else Told(each.labels, each.annotations, each.starts_at, each.ended_at, each.pending - heard)
        for each in told
    )
    return tuple(each for each in left if each.ended_at is None or each.pending)


def message(told: Iterable[Told], alertmanager: str, active: Iterable[Told], at: datetime) -> list[dict[str, Any]]:
    """What one Alertmanager is sent.

    Args:
        told: what is to be told.
        alertmanager: its URL.
        active: what it holds of ours; what nothing else speaks of is ended.
        at: the time of this check.
    """
    told = list(told)
    spoken_of = {key(each.labels) for each in told}
    stray = [each for each in active if key(each.labels) not in spoken_of]
    return [
        *(
            alert(each, each.ended_at or at + LIFETIME)
            for each in told
            if each.ended_at is None or alertmanager in each.pending
        ),
        *(alert(each, at) for each in stray),
    ]


def alert(told: Told, ends_at: datetime) -> dict[str, Any]:
    """One alert of Alertmanager's API v2."""
    return {
        "labels": dict(told.labels),
        "annotations": dict(told.annotations),
        # An end that lies before its start is refused: clocks of two machines may differ.
        "startsAt": min(told.starts_at, ends_at).isoformat(),
        "endsAt": ends_at.isoformat(),
    }
