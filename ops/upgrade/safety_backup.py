"""The backup that an upgrade makes before it changes the database, or a recent one that takes its place."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ops import compose, data_tier, time_limits
from ops.backup import repository
from ops.child_process import no_answer
from ops.errors import StackError
from ops.services import BACKUP
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ops.project import Project

DATABASE: Final = "SELECT system_identifier, timeline_id FROM pg_control_system(), pg_control_checkpoint()"


def require(settings: Mapping[str, str]) -> None:
    """Refuse a stack that makes no backups.

    Raises:
        StackError: The profile is off.
    """
    if BACKUP not in profiles(settings):
        raise StackError(
            "cannot upgrade without a backup: the upgrade changes the database, and the profile backup is off",
            hint=f"turn on --profile {BACKUP}, or add --without-backup if the database is backed up elsewhere",
        )


def is_recent(
    project: Project, settings: Mapping[str, str], minutes: int, report: Callable[[str], None], now: datetime
) -> bool:
    """Return whether the newest set is complete, of the present database, and at most some minutes old.

    A restore from it reaches the present, as from every set: the log is in the repository.

    Args:
        project: The stack.
        settings: Of .env.
        minutes: The age; 0 for never.
        report: Prints a line of progress.
        now: The current time.

    Raises:
        StackError: The backups cannot be read, or Postgres does not answer.
    """
    if not minutes:
        return False
    contents = repository.contents(repository.of_stack(project, settings, settings["BACKUP_IMAGE"]))
    newest = contents.sets[-1]
    current = data_tier.ask(
        data_tier.writable_postgres(compose.instances(settings["COMPOSE_PROJECT_NAME"])),
        *(*data_tier.PSQL, "-d", "postgres", "-Atc", DATABASE),
    )
    problems = {
        f"it is of {newest.stopped:%Y-%m-%d %H:%M} UTC": now - newest.stopped > timedelta(minutes=minutes),
        "its files are missing": not newest.files,
        "it has damaged pages": newest.is_damaged,
        "its verification failed": bool(newest.verification and newest.verification.problems),
        "it is of another database, or of before a restore": current != f"{contents.system_id}|{newest.timeline}",
    }
    unfit = "; ".join(problem for problem, exists in problems.items() if exists)
    report(f"backup {newest.label} in {newest.storage}: {f'{unfit}, so one is made' if unfit else 'recent, complete'}")
    return not unfit


def make(project: Project) -> None:
    """Make a backup now, by the command of the version that runs; it takes the stack's lock itself.

    Raises:
        StackError: It failed.
    """
    environment = {**os.environ, "STACK_STATE_DIR": str(project.state)}
    command = [str(project.root / "ops/stack"), "backup", "now"]
    seconds = 2 * (time_limits.ENGINE + time_limits.ENDING)  # of the database, then of the files
    try:
        status = subprocess.run(command, env=environment, check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired as error:
        raise no_answer("make a backup", seconds) from error
    if status != 0:
        raise StackError("cannot make a backup: see the lines above", hint="fix the cause, then run this again")
