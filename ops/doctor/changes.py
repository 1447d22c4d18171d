"""What an operator has begun or has yet to decide: an upgrade, the first removal of old data, backups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.doctor.finding import Finding, Urgency
from ops.services import BACKUP
from ops.settings_file import has_own_data, profiles
from ops.upgrade import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined
    from ops.upgrade.journal import Journal


@dataclass(frozen=True)
class Changes:
    """The record of an upgrade that has not ended, what maintenance waits for, and whether the data has no backups."""

    upgrade: Journal | None
    waits_for: str
    has_no_backups: bool


def gather(examined: Examined) -> Changes:
    """Return the changes."""
    waits = (instance.waits_for for instance in examined.instances.get("maintenance", ()))
    settings = examined.settings
    return Changes(
        upgrade=journal.read(examined.project),
        waits_for=next(filter(None, waits), ""),
        has_no_backups=bool(settings) and has_own_data(settings) and BACKUP not in profiles(settings),
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
