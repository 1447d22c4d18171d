"""A backup that is made now, by the services of the profile `backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import compose, data_tier, settings_file, time_limits
from ops.errors import FAILURE, StackError
from ops.services import BACKUP_FILES, BACKUP_NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAMS: Final = "/usr/local/lib/backup"
REPLICA: Final = 75
"""The exit code of compose/backup/backup_database.py beside a replica."""


def make(settings: Mapping[str, str], report: Callable[[str], None], *, is_full: bool = False) -> str:
    """Make a backup of the database beside the primary, then of the files, and return its label.

    Args:
        settings: Of .env.
        report: Prints a line of progress.
        is_full: Whether to copy everything, not only what changed.

    Raises:
        StackError: No backup service runs, or an engine failed or has not ended in time.
    """
    by_service = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    nodes = BACKUP_NODES["data-ha" if "data-ha" in settings_file.profiles(settings) else "data"]
    databases = compose.in_state(by_service, "running", nodes)
    files = compose.in_state(by_service, "running", [BACKUP_FILES])
    if not databases or not files:
        raise StackError("cannot make a backup: its services do not run", hint="run ./ops/stack up")
    report("backing up the database")
    kind = ["full"] if is_full else []
    seconds = time_limits.ENGINE + time_limits.ENDING  # the services keep the limit themselves
    for container in databases:
        program = ("python3", f"{PROGRAMS}/backup_database.py", "now", *kind)
        result = data_tier.execute(container.id, *program, seconds=seconds)
        if result.returncode != REPLICA:
            break
    if result.returncode != 0:
        raise failure("the database", result.stderr)
    label = result.stdout.split()[-1]
    report(f"{label}: backing up the files")
    program = ("python3", f"{PROGRAMS}/backup_files.py", "now", label)
    result = data_tier.execute(files[0].id, *program, seconds=seconds)
    if result.returncode != 0:
        raise failure("the files", result.stderr)
    return label


def failure(what: str, output: str) -> StackError:
    """Return the error of a backup that failed."""
    return StackError(
        f"cannot back up {what}: {data_tier.last_line(output)}",
        hint="fix the cause, then run ./ops/stack backup now; ./ops/stack logs has the whole output",
        code=FAILURE,
    )
