"""Patroni's method `pgbackrest`: builds a replica from the newest backup, so that the primary has no work with it.

    replica_from_backup.py --datadir=FOLDER --connstring=DSN …

It fails, and Patroni takes a copy of the primary instead, unless a storage has a backup of this database on the current
timeline: a replica from an older timeline may have changes that the primary has not. The log since the backup comes
from the storages until they have no more: restore-log.sh.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

MARKER: Final = "built-from-backup"
"""The file in the data by which restore-log.sh knows that the replica needs log from the storages."""
ANSWER_SECONDS: Final = 60.0


class NoBackupError(Exception):
    """No storage has a backup for the replica."""


class Source(NamedTuple):
    """A backup: pgBackRest's number of its repository, and its label."""

    repository: int
    label: str


def newest(information: list[dict[str, Any]], system_id: str, timeline: int) -> Source:
    """Return the newest backup of a database on a timeline, in the first storage that has one.

    Args:
        information: The output of `pgbackrest info --output=json`.
        system_id: The identifier of the database.
        timeline: The timeline of the primary.

    Raises:
        NoBackupError: There is none.
    """
    found: dict[int, str] = {}
    for stanza in information:
        own = {(each["repo-key"], each["id"]) for each in stanza["db"] if str(each["system-id"]) == system_id}
        for backup in stanza["backup"]:
            database = backup["database"]
            started = backup["archive"]["start"]
            is_own = (database["repo-key"], database["id"]) in own
            if is_own and started and int(started[:8], 16) == timeline:
                found[database["repo-key"]] = backup["label"]  # the oldest is first
    if not found:
        raise NoBackupError(f"no backup of this database on timeline {timeline}")
    repository = min(found)
    return Source(repository, found[repository])


def output(*command: str) -> str:
    """Return the output of a short command.

    Raises:
        NoBackupError: It failed, or did not end.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS).stdout
    except (subprocess.SubprocessError, OSError) as error:
        raise NoBackupError(f"{command[0]}: {error}") from error


def main(arguments: list[str]) -> int:
    """Restore the backup, and return the exit code."""
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    try:
        identity = output("psql", f"{options['connstring']} replication=true", "-Atc", "IDENTIFY_SYSTEM").split("|")
        information = json.loads(output("pgbackrest", "info", "--output=json"), strict=False)
        source = newest(information, identity[0], int(identity[1]))
    except NoBackupError as error:
        print(f"cannot build the replica from a backup: {error}", file=sys.stderr)
        return 1
    print(f"building the replica from the backup {source.label}", flush=True)
    restore = ["pgbackrest", f"--repo={source.repository}", f"--set={source.label}", "--type=standby", "restore"]
    Path(options["datadir"]).mkdir(mode=0o700, exist_ok=True)
    code = subprocess.run(restore, check=False).returncode
    if code == 0:
        Path(options["datadir"], MARKER).touch()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
