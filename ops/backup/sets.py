"""The sets in the repository: a backup of the database and the files of the same label."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

WRONG_PASSPHRASE: Final = ("[FormatError]", "[CryptoError]", "[JsonFormatError]")
"""pgBackRest reads a file of the repository with another passphrase as one without meaning."""
EMPTY: Final = (1, 2)
"""pgBackRest's status codes of a repository that has no backup."""


FIGURES: Final = "airflow-ha-figures"
VERIFICATION: Final = "airflow-ha-verification"
"""The annotations of a backup that compose/backup/backup_database.py writes."""


@dataclass(frozen=True)
class Verification:
    """A restore of a backup that was checked: when, and the problems that it had."""

    at: datetime
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackupSet:
    """A backup of the database, with the files of its label.

    Attributes:
        label: Its identity.
        kind: full, diff or incr.
        started: When it began.
        stopped: When it was complete: the first time that it can restore.
        size: Bytes of the database.
        stored: Bytes in the repository, with the backups that it refers to.
        is_damaged: Whether a page of the database failed its checksum.
        files: The snapshot of its files; empty if there is none.
        rows: Of tables that a restore must have at least; empty if they were not recorded.
        verification: The last one; None if there was none.
    """

    label: str
    kind: str
    started: datetime
    stopped: datetime
    size: int
    stored: int
    is_damaged: bool = False
    files: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    verification: Verification | None = None


@dataclass(frozen=True)
class Contents:
    """What a repository holds.

    Attributes:
        sets: The oldest first.
        system_id: The identifier that Postgres gave to the database when it was created; empty without backups.
    """

    sets: tuple[BackupSet, ...]
    system_id: str


def parse(information: str, snapshots: str) -> Contents:
    """Return the sets, the oldest first.

    Args:
        information: The output of `pgbackrest info --output=json`.
        snapshots: The output of `restic snapshots --json`; empty if there are none.

    Raises:
        StackError: The repository cannot be read, or has no backup.
    """
    # A wrong passphrase puts bytes of the encrypted file into the message.
    (stanza,) = json.loads(information, strict=False)
    status = stanza["repo"][0]["status"]
    if status["code"] in EMPTY:
        raise StackError(
            "cannot find a backup: the repository has none of this stack", hint="run ./ops/stack backup now"
        )
    if status["code"] != 0:
        raise unreadable(status["message"])
    files = {tag: snapshot["id"] for snapshot in json.loads(snapshots or "[]") for tag in snapshot.get("tags") or []}
    newest = stanza["db"][-1]
    sets = [parse_set(backup, files) for backup in stanza["backup"] if backup["database"]["id"] == newest["id"]]
    return Contents(tuple(sets), str(newest["system-id"]))


def parse_set(backup: dict[str, Any], files: dict[str, str]) -> BackupSet:
    """Return a set from pgBackRest's entry.

    Args:
        backup: The entry.
        files: The snapshot of each label.
    """
    times, notes = backup["timestamp"], backup.get("annotation", {})
    return BackupSet(
        label=backup["label"],
        kind=backup["type"],
        started=datetime.fromtimestamp(times["start"], UTC),
        stopped=datetime.fromtimestamp(times["stop"], UTC),
        size=backup["info"]["size"],
        stored=backup["info"]["repository"].get("size", 0),
        is_damaged=bool(backup.get("error")),
        files=files.get(backup["label"], ""),
        rows=json.loads(notes.get(FIGURES, "{}")).get("rows", {}),
        verification=parse_verification(notes[VERIFICATION]) if VERIFICATION in notes else None,
    )


def parse_verification(note: str) -> Verification:
    """Return the verification in an annotation."""
    value = json.loads(note)
    return Verification(datetime.fromtimestamp(value["at"], UTC), tuple(value["problems"]))


def unreadable(message: str) -> StackError:
    """Return the error of a repository that cannot be read."""
    first = "".join(letter for letter in message.splitlines()[0] if letter.isprintable())
    if any(sign in message for sign in WRONG_PASSPHRASE):
        return StackError(
            "cannot read the backups: they were made with another passphrase",
            where="the secret backup_passphrase",
            hint="write the passphrase that you stored outside the machine into compose/secrets/backup_passphrase",
        )
    return StackError(
        f"cannot reach the backups: {first}",
        hint="check BACKUP_FOLDER in .env, and that its disk is mounted",
    )


def choose(sets: Sequence[BackupSet], at: datetime | None, label: str | None, now: datetime) -> BackupSet:
    """Return the set to start from: that of the label, or the newest that was complete at the time.

    pgBackRest itself would take the newest set for a time before it, and restore to the end of the log instead.

    Args:
        sets: The oldest first.
        at: The time to restore; None for the end of the log.
        label: The set to restore exactly.
        now: The current time.

    Raises:
        StackError: There is no such set, or no backup reaches the time.
    """
    if not sets:
        raise StackError("cannot find a backup: the repository has none", hint="run ./ops/stack backup now")
    if label is not None:
        chosen = next((each for each in sets if each.label == label), None)
        if chosen is None:
            raise StackError(
                f"cannot find the backup {label}: the repository has none of this id",
                where="--backup",
                hint="run ./ops/stack backup list for the ids",
            )
        return chosen
    if at is None:
        return sets[-1]
    if at > now:
        raise StackError(
            f"cannot restore {at:%Y-%m-%d %H:%M:%S} UTC: it is in the future",
            where="--at",
            hint="use a time with its zone, such as 2026-11-29T20:15:00+01:00; without one it is UTC",
        )
    before = [each for each in sets if each.stopped <= at]
    if not before:
        raise StackError(
            f"cannot restore {at:%Y-%m-%d %H:%M:%S} UTC: the oldest backup was complete at "
            f"{sets[0].stopped:%Y-%m-%d %H:%M:%S} UTC",
            where="--at",
            hint="use a later time; BACKUP_KEEP sets how far back a restore reaches",
        )
    return before[-1]


def parse_time(text: str) -> datetime:
    """Return a time in UTC; a text without a zone is in UTC.

    Raises:
        StackError: The text is no time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise StackError(
            f"cannot restore {text!r}: it is not a time",
            where="--at",
            hint="use, for example, 2026-11-29T20:15:00, which is UTC, or 2026-11-29T20:15:00+01:00",
        ) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
