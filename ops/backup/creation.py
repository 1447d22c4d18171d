"""A backup that is made now, and the record of a verification, by the services of the profile `backup`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import backup_storage, compose, data_tier, settings_file, time_limits
from ops.errors import FAILURE, StackError
from ops.services import BACKUP_FILES, BACKUP_NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from subprocess import CompletedProcess

    from ops.backup.sets import BackupSet
    from ops.compose import Instance

PROGRAMS: Final = "/usr/local/lib/backup"
SERVICE_SECONDS: Final = time_limits.ENGINE + time_limits.ENDING
"""A backup service keeps the former limit itself."""
REPLICA: Final = 75
"""The exit code of compose/backup/backup_database.py beside a replica."""


def make(
    settings: Mapping[str, str], report: Callable[[str], None], *, is_full: bool = False, is_new: bool = False
) -> str:
    """Make a backup of the database beside the primary, then of the files, in each storage, and return the first label.

    Args:
        settings: Of .env.
        report: Prints a line of progress.
        is_full: Whether to copy everything, not only what changed.
        is_new: Whether to start a new repository where former backups are gone.

    Raises:
        StackError: No backup service runs, or an engine failed or has not ended in time, if only for one storage.
    """
    by_service = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    files = compose.in_state(by_service, "running", [BACKUP_FILES])
    if not files:
        raise no_service("make a backup")
    report("backing up the database")
    options = [name for name, is_set in (("full", is_full), ("new", is_new)) if is_set]
    result = beside_the_primary(settings, by_service, "make a backup", "now", *options)
    made, errors = made_backups(result.stdout), []
    if result.returncode != 0:
        errors.append(failure("the database", result.stderr))
    for storage, label in made:
        report(f"{storage}: {label}: backing up the files")
        program = ("python3", f"{PROGRAMS}/backup_files.py", "now", storage, label)
        saved = data_tier.execute(files[0].id, *program, seconds=SERVICE_SECONDS)
        if saved.returncode != 0:
            errors.append(failure(f"the files in {storage}", saved.stderr))
    for error in errors[1:]:
        report(error.what)
    if errors:
        raise errors[0]
    return made[0][1]


def made_backups(output: str) -> list[tuple[str, str]]:
    """Return the storage and the label of each backup in the output of backup_database.py; its other lines are log."""
    lines = [line.split() for line in output.splitlines()]
    return [(words[0], words[1]) for words in lines if len(words) == 2 and words[0] in backup_storage.NUMBERS]


def record(settings: Mapping[str, str], chosen: BackupSet, problems: Sequence[str]) -> None:
    """Record a verification of a backup.

    Raises:
        StackError: No backup service runs, or the repository cannot be written.
    """
    what, by_service = "record the verification", compose.instances(settings["COMPOSE_PROJECT_NAME"])
    arguments, text = ("verified", chosen.storage, chosen.label), json.dumps(list(problems))
    result = beside_the_primary(settings, by_service, what, *arguments, stdin=text)
    if result.returncode != 0:
        raise StackError(f"cannot {what}: {data_tier.last_line(result.stderr)}", code=FAILURE)


def beside_the_primary(
    settings: Mapping[str, str], by_service: Mapping[str, list[Instance]], what: str, *arguments: str, stdin: str = ""
) -> CompletedProcess[str]:
    """Return the result of backup_database.py beside the primary.

    Args:
        settings: Of .env.
        by_service: The containers of the stack.
        what: The purpose, for the error.
        *arguments: Of backup_database.py.
        stdin: Its standard input.

    Raises:
        StackError: No backup service runs.
    """
    nodes = BACKUP_NODES["data-ha" if "data-ha" in settings_file.profiles(settings) else "data"]
    services = compose.in_state(by_service, "running", nodes)
    if not services:
        raise no_service(what)
    for container in services:
        program = ("python3", f"{PROGRAMS}/backup_database.py", *arguments)
        result = data_tier.execute(container.id, *program, stdin=stdin, seconds=SERVICE_SECONDS)
        if result.returncode != REPLICA:
            break
    return result


def no_service(what: str) -> StackError:
    """Return the error of a stack whose backup services do not run."""
    return StackError(f"cannot {what}: the backup services do not run", hint="run ./ops/stack up")


def failure(what: str, output: str) -> StackError:
    """Return the error of a backup that failed.

    Args:
        what: What was backed up.
        output: Of a backup service: its last line, or a line for each storage.
    """
    of_storages = [line for line in output.splitlines() if line.partition(":")[0] in backup_storage.NUMBERS]
    reason = "; ".join(of_storages) or data_tier.last_line(output)
    where, hint = backup_storage.advice(reason)
    return StackError(
        f"cannot back up {what}: {reason}",
        where=where,
        hint=hint or "fix the cause, then run ./ops/stack backup now; ./ops/stack logs has the whole output",
        code=FAILURE,
    )
