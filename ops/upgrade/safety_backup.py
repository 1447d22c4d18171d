"""The backup that an upgrade makes before it changes the database."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from ops import time_limits
from ops.child_process import no_answer
from ops.errors import StackError
from ops.services import BACKUP
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project


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
