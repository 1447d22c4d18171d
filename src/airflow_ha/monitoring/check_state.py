"""What one check must know of those before it, as the text of one Airflow Variable.

A Variable, since a task can write it at any moment and it belongs to no run: an XCom is deleted when its task is tried
again, and one of a run before is found by logical date, which a run started by hand may not have. It is written only
when it has changed, so a quiet system writes nothing. Who deletes it loses little: what is active is asked of the
Alertmanagers too.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_ha.monitoring.observations import DUE_GRACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_ha.monitoring.observations import DueDag, Observations

VARIABLE = "monitoring_memory"
DESCRIPTION = "Written by monitoring_dag: the alerts it has told, and since when it sees what. Not for editing."

UNSEEN_LIMIT = timedelta(minutes=3)
"""A queued task that is not seen for this long is another one when it is seen again: the scheduler takes one that waits
off the queue and puts it at its end, every 30 s."""

QUEUED_GRACE = timedelta(seconds=5)
"""A task that has been queued for no longer is on its way to a worker."""

OVERDUE = "overdue:"

REMEMBERED = 500
"""Conditions at most, those that have lasted longest: the Variable stays small in a flood."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """An alert that has been told, or should have been.

    Attributes:
        labels: its own, which tell it from all others.
        annotations: its own.
        starts_at: when it was found.
        ended_at: when it was first not found any more; None while it lasts.
        pending: the Alertmanagers that have not taken its end yet.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ended_at: datetime | None = None
    pending: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Seen:
    """A condition that lasts."""

    first: datetime
    last: datetime


@dataclass(frozen=True)
class Memory:
    """All that is remembered.

    Attributes:
        told: the alerts that last, and those whose end is still to be told.
        seen: conditions by their key.
    """

    told: tuple[Told, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def lasts(self, key: str, at: datetime) -> float:
        """Seconds since a condition was first seen; 0 when it is not there."""
        return (at - self.seen[key].first).total_seconds() if key in self.seen else 0.0


def queued_key(instance_id: str) -> str:
    """The condition that a task instance is queued."""
    return f"queued:{instance_id}"


def overdue_key(dag: DueDag) -> str:
    """Return the condition that a DAG is past this due time: one that catches up has another one each time."""
    return f"{OVERDUE}{dag.dag_id}@{dag.due.isoformat()}"


def overdue_dags(seen: Iterable[str]) -> set[str]:
    """Return the DAGs that are past a due time, of the keys of conditions."""
    return {key.removeprefix(OVERDUE).rpartition("@")[0] for key in seen if key.startswith(OVERDUE)}


def pool_key(pool_name: str) -> str:
    """The condition that a pool starves."""
    return f"pool:{pool_name}"


WORKERS_KEY = "workers"
"""The condition that every worker is full."""


def conditions(seen: Observations, slots: int) -> dict[str, datetime]:
    """The conditions that are there now, and since when at least.

    Args:
        seen: what the check saw.
        slots: how many tasks one worker runs at a time.
    """
    found = {queued_key(task.id): task.queued for task in seen.queued if task.queued < seen.at - QUEUED_GRACE}
    found |= {overdue_key(dag): seen.at for dag in seen.due if dag.late(seen.at) > DUE_GRACE}
    found |= {pool_key(pool.name): seen.at for pool in seen.pools if pool.starving}
    if seen.queued and seen.running and all(count >= slots for count in seen.running.values()):
        found[WORKERS_KEY] = seen.at
    return found


def remember(before: Mapping[str, Seen], now: Mapping[str, datetime], at: datetime) -> dict[str, Seen]:
    """The conditions that last, each since it was first seen.

    Args:
        before: those of the check before.
        now: those that are there, and since when at least.
        at: the time of this check.
    """
    kept = {
        key: seen
        for key, seen in before.items()
        if key not in now and key.startswith(queued_key("")) and at - seen.last < UNSEEN_LIMIT
    }
    lasting = {key: Seen(min(since, before[key].first) if key in before else since, at) for key, since in now.items()}
    longest = sorted((kept | lasting).items(), key=lambda item: item[1].first)
    return dict(longest[:REMEMBERED])


def dump(memory: Memory) -> str:
    """As text: the same for the same memory."""
    return json.dumps(
        {
            "told": [
                {
                    "labels": dict(told.labels),
                    "annotations": dict(told.annotations),
                    "starts_at": told.starts_at.isoformat(),
                    "ended_at": told.ended_at.isoformat() if told.ended_at else None,
                    "pending": sorted(told.pending),
                }
                for told in memory.told
            ],
            "seen": {key: [seen.first.isoformat(), seen.last.isoformat()] for key, seen in memory.seen.items()},
        },
        sort_keys=True,
    )


def load(text: str | None) -> Memory:
    """Out of the text; empty when there is none, or when somebody has spoilt it, which is said."""
    if not text:
        return Memory()
    try:
        found = json.loads(text)
        return Memory(
            told=tuple(_told(found["told"])),
            seen={key: Seen(*map(datetime.fromisoformat, times)) for key, times in found["seen"].items()},
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        log.warning("the Airflow Variable %s cannot be read; going on without what it said", VARIABLE, exc_info=True)
        return Memory()


def _told(entries: Iterable[dict[str, Any]]) -> Iterable[Told]:
    for entry in entries:
        yield Told(
            labels=dict(entry["labels"]),
            annotations=dict(entry["annotations"]),
            starts_at=datetime.fromisoformat(entry["starts_at"]),
            ended_at=datetime.fromisoformat(entry["ended_at"]) if entry["ended_at"] else None,
            pending=frozenset(entry["pending"]),
        )
