"""What an operator has begun or has yet to decide: an upgrade, a restore, the first removal of old data, backups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.backup import replaced
from ops.doctor.finding import Finding, Urgency
from ops.services import BACKUP
from ops.settings_file import has_own_data, profiles
from ops.upgrade import journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.doctor.finding import Examined
    from ops.upgrade.journal import Journal


@dataclass(frozen=True)
class Changes:
    """What is not decided.

    Attributes:
        upgrade: The record of an upgrade that has not ended.
        waits_for: What maintenance waits for.
        has_no_backups: Whether the data has no backups.
        restore_is_unfinished: Whether a restore was killed.
        replaced: Bytes of the database that a restore replaced, by container.
    """

    upgrade: Journal | None
    waits_for: str
    has_no_backups: bool
    restore_is_unfinished: bool
    replaced: Mapping[str, int]


def gather(examined: Examined) -> Changes:
    """Return the changes."""
    waits = (instance.waits_for for instance in examined.instances.get("maintenance", ()))
    settings = examined.settings
    return Changes(
        upgrade=journal.read(examined.project),
        waits_for=next(filter(None, waits), ""),
        has_no_backups=bool(settings) and has_own_data(settings) and BACKUP not in profiles(settings),
        restore_is_unfinished=replaced.is_only_way_back(examined.instances),
        replaced=replaced.sizes(examined.instances),
    )


def unfinished_upgrade(changes: Changes) -> Iterator[Finding]:
    """Yield a finding for an upgrade that was killed: the next `up` is refused."""
    if record := changes.upgrade:
        value = f"to {record.target}, of {record.started}"
        yield Finding(Urgency.URGENT, "upgrade", "has not ended", value, "./ops/stack upgrade")


def maintenance(changes: Changes) -> Iterator[Finding]:
    """Yield a finding while nothing old is removed."""
    if changes.waits_for:
        yield Finding(Urgency.SOON, "maintenance", "removes nothing", changes.waits_for, "./ops/stack maintenance")


def backups(changes: Changes) -> Iterator[Finding]:
    """Yield a finding for a database that only its disk keeps."""
    if changes.has_no_backups:
        fix = "add backup to COMPOSE_PROFILES in .env, then run ./ops/stack up"
        yield Finding(Urgency.NOTE, "backups", "are off", f"the profile {BACKUP} is not active", fix)


def unfinished_restore(changes: Changes) -> Iterator[Finding]:
    """Yield a finding for a restore that was killed: it may have left Airflow without a log-in to Postgres."""
    if changes.restore_is_unfinished:
        value = "Airflow may not be able to log in to Postgres"
        yield Finding(Urgency.URGENT, "restore", "has not ended", value, "./ops/stack restore")


def replaced_database(changes: Changes) -> Iterator[Finding]:
    """Yield a finding for a database that a restore replaced, and that still takes space."""
    if changes.replaced and not changes.restore_is_unfinished:
        value = f"{replaced.shown(changes.replaced)}, until the next restore"
        fix = f"{replaced.COMMAND} deletes it, once the restored database is right"
        yield Finding(Urgency.NOTE, "disk", "keeps the database that a restore replaced", value, fix)
