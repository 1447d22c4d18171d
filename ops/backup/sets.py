"""The sets in the repository: a backup of the database and the files of the same label."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ops import backup_storage
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WRONG_PASSPHRASE: Final = ("[FormatError]", "[CryptoError]", "[JsonFormatError]")
"""pgBackRest reads a file of the repository with another passphrase as one without meaning."""
NO_BACKUP: Final = "cannot find a backup: the repository has none of this stack"
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
        storage: Where it is stored.
        timeline: The timeline of Postgres that it was made on.
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
    storage: str = backup_storage.LOCAL
    timeline: int = 0


@dataclass(frozen=True)
class Contents:
    """What the storages hold.

    Attributes:
        sets: The oldest first.
        system_id: The identifier that Postgres gave to the database when it was created; empty without backups.
    """

    sets: tuple[BackupSet, ...]
    system_id: str
    problems: Mapping[str, str] = field(default_factory=dict)


def join(by_storage: Mapping[str, Contents | StackError]) -> Contents:
    """Return the contents of all storages that can be used: those with backups of the same database as the first one.

    Args:
        by_storage: The contents of each storage, or why it has none.

    Raises:
        StackError: Of the first storage, if none can be used.
    """
    usable = {storage: each for storage, each in by_storage.items() if isinstance(each, Contents)}
    problems = {storage: each.what for storage, each in by_storage.items() if isinstance(each, StackError)}
    if not usable:
        raise next(each for each in by_storage.values() if isinstance(each, StackError))
    first = next(iter(usable.values()))
    joined: list[BackupSet] = []
    for storage, contents in usable.items():
        if contents.system_id == first.system_id:
            joined += [replace(each, storage=storage) for each in contents.sets]
        else:
            problems[storage] = "it has the backups of another database"
    joined.sort(key=lambda each: each.stopped)
    return replace(first, sets=tuple(joined), problems=problems)


def parse(information: str, snapshots: str) -> Contents:
    """Return the sets of one storage, the oldest first.

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
        raise StackError(NO_BACKUP, hint="run ./ops/stack backup now")
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
        timeline=int(backup["archive"]["start"][:8], 16),
    )


def parse_verification(note: str) -> Verification:
    """Return the verification in an annotation."""
    value = json.loads(note)
    return Verification(datetime.fromtimestamp(value["at"], UTC), tuple(value["problems"]))


def unreadable(message: str) -> StackError:
    """Return the error of a repository that cannot be read."""
    first = "".join(letter for letter in message.splitlines()[0] if letter.isprintable())
    if wrong := backup_storage.wrong_setting(message):
        return StackError(f"cannot reach the backups: {first}", where=wrong, hint="correct it, then run this again")
    if any(sign in message for sign in WRONG_PASSPHRASE):
        return StackError(
            "cannot read the backups: they were made with another passphrase",
            where="the secret backup_passphrase",
            hint="write the passphrase that you stored outside the machine into compose/secrets/backup_passphrase",
        )
    return StackError(
        f"cannot reach the backups: {first}",
        hint="check BACKUP_FOLDER or BACKUP_S3_* in .env, and that the disk is mounted or the server reachable",
    )


def choose(
    sets: Sequence[BackupSet], at: datetime | None, label: str | None, now: datetime, storage: str | None = None
) -> BackupSet:
    """Return the set to start from: of the first storage that has one, that of the label, or the newest at the time.

    Args:
        sets: The oldest first.
        at: The time to restore; None for the end of the log.
        label: The set to restore exactly.
        now: The current time.
        storage: Only sets of this storage; None for all.

    Raises:
        StackError: There is no such set, or no backup reaches the time.
    """
    storages = [storage] if storage else [name for name in backup_storage.NUMBERS if in_storage(sets, name)]
    errors = []
    for name in storages or [backup_storage.LOCAL]:
        try:
            return choose_one(in_storage(sets, name), at, label, now)
        except StackError as error:
            errors.append(error)
    raise errors[0]


def in_storage(sets: Sequence[BackupSet], storage: str) -> list[BackupSet]:
    """Return the sets of a storage."""
    return [each for each in sets if each.storage == storage]


def choose_one(sets: Sequence[BackupSet], at: datetime | None, label: str | None, now: datetime) -> BackupSet:
    """Return the set of one storage to start from: that of the label, or the newest that was complete at the time.

    pgBackRest itself would take the newest set for a time before it, and restore to the end of the log instead.

    Args:
        sets: Of the storage, the oldest first.
        at: The time to restore; None for the end of the log.
        label: The set to restore exactly.
        now: The current time.

    Raises:
        StackError: There is no such set, or no backup reaches the time.
    """
    if not sets:
        raise StackError("cannot find a backup: the storage has none", hint="run ./ops/stack backup now")
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
