"""The state that one check passes to the next, as the text of one Airflow Variable.

A Variable, because a task can write it at any time and it belongs to no run. An XCom is deleted when its task is
retried, and a previous run's XCom is found by logical date, which a manual run may lack. The Variable is written only
when the state changes. Deleting it loses little: each check also reads the active alerts from the Alertmanagers.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_ha.monitoring.observations import DUE_GRACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_ha.monitoring.observations import DueDag, Observations

VARIABLE = "monitoring_memory"
DESCRIPTION = "Written by monitoring_dag: alerts that it sent, and since when conditions last. Do not edit."

UNSEEN_LIMIT = timedelta(minutes=3)
"""A queued task that is missing for this long counts as a new one when it is queued again. The scheduler takes a
waiting task off the queue every 30 s and appends it again, so a task can be missing for a moment."""

QUEUED_GRACE = timedelta(seconds=5)
"""A task queued for at most this long is on its way to a worker."""

OVERDUE = "overdue:"

MAX_CONDITIONS = 500
"""The oldest conditions are kept, so the Variable stays small in a flood."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SentAlert:
    """An alert that was sent, or is to be sent.

    Attributes:
        labels: identify the alert.
        annotations: of the alert.
        starts_at: when it was first found.
        ended_at: when it was first not found again; None while it fires.
        pending: the URLs of the Alertmanagers that have not received its end yet.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ended_at: datetime | None = None
    pending: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Condition:
    """When a condition was observed first and last."""

    first: datetime
    last: datetime


@dataclass(frozen=True)
class CheckState:
    """The state after a check.

    Attributes:
        alerts: firing alerts, and resolved ones that some Alertmanager has not received.
        conditions: the lasting conditions by key.
    """

    alerts: tuple[SentAlert, ...] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    def duration(self, key: str, at: datetime) -> float:
        """Return the seconds since a condition was first observed; 0 if it does not last."""
        return (at - self.conditions[key].first).total_seconds() if key in self.conditions else 0.0


def queued_key(instance_id: str) -> str:
    """Return the key of the condition that a task instance is queued."""
    return f"queued:{instance_id}"


def overdue_key(dag: DueDag) -> str:
    """Return the key of the condition that a DAG is past this due time; a catching-up DAG has a new key each time."""
    return f"{OVERDUE}{dag.dag_id}@{dag.due.isoformat()}"


def overdue_dags(keys: Iterable[str]) -> set[str]:
    """Return the ids of the DAGs that are past a due time, from the keys of conditions."""
    return {key.removeprefix(OVERDUE).rpartition("@")[0] for key in keys if key.startswith(OVERDUE)}


def pool_key(pool_name: str) -> str:
    """Return the key of the condition that a pool starves."""
    return f"pool:{pool_name}"


WORKERS_KEY = "workers"
"""The key of the condition that all workers are full."""


def current_conditions(observed: Observations, slots: int) -> dict[str, datetime]:
    """Return the observed conditions, and since when each lasts at least.

    Args:
        observed: this check's observations.
        slots: how many tasks one worker runs at a time.
    """
    current = {queued_key(task.id): task.queued for task in observed.queued if task.queued < observed.at - QUEUED_GRACE}
    current |= {overdue_key(dag): observed.at for dag in observed.due if dag.seconds_late(observed.at) > DUE_GRACE}
    current |= {pool_key(pool.name): observed.at for pool in observed.pools if pool.is_starving}
    if observed.queued and observed.running and all(count >= slots for count in observed.running.values()):
        current[WORKERS_KEY] = observed.at
    return current


def update_conditions(
    before: Mapping[str, Condition], current: Mapping[str, datetime], at: datetime
) -> dict[str, Condition]:
    """Return the lasting conditions with the time of their first observation.

    Args:
        before: the conditions of the previous check.
        current: the observed conditions, and since when each lasts at least.
        at: the time of this check.
    """
    kept = {
        key: condition
        for key, condition in before.items()
        if key not in current and key.startswith(queued_key("")) and at - condition.last < UNSEEN_LIMIT
    }
    lasting = {
        key: Condition(min(since, before[key].first) if key in before else since, at) for key, since in current.items()
    }
    longest = sorted((kept | lasting).items(), key=lambda item: item[1].first)
    return dict(longest[:MAX_CONDITIONS])


def dump(state: CheckState) -> str:
    """Return the state as text; equal states give equal texts."""
    return json.dumps(
        {
            "told": [
                {
                    "labels": dict(alert.labels),
                    "annotations": dict(alert.annotations),
                    "starts_at": alert.starts_at.isoformat(),
                    "ended_at": alert.ended_at.isoformat() if alert.ended_at else None,
                    "pending": sorted(alert.pending),
                }
                for alert in state.alerts
            ],
            "seen": {
                key: [condition.first.isoformat(), condition.last.isoformat()]
                for key, condition in state.conditions.items()
            },
        },
        sort_keys=True,
    )


def load(text: str | None) -> CheckState:
    """Return the state in the text; an empty one if there is no text, or, with a warning, if it cannot be parsed."""
    if not text:
        return CheckState()
    try:
        stored = json.loads(text)
        return CheckState(
            alerts=tuple(_alerts(stored["told"])),
            conditions={key: Condition(*map(datetime.fromisoformat, times)) for key, times in stored["seen"].items()},
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        log.warning("cannot read the Airflow Variable %s; continuing with an empty state", VARIABLE, exc_info=True)
        return CheckState()


def _alerts(entries: Iterable[dict[str, Any]]) -> Iterator[SentAlert]:
    for entry in entries:
        yield SentAlert(
            labels=dict(entry["labels"]),
            annotations=dict(entry["annotations"]),
            starts_at=datetime.fromisoformat(entry["starts_at"]),
            ended_at=datetime.fromisoformat(entry["ended_at"]) if entry["ended_at"] else None,
            pending=frozenset(entry["pending"]),
        )
