"""Backs up files with restic after each backup of the database, under the same label, and removes those of lost labels.

    backup_files.py                       the service
    backup_files.py now STORAGE LABEL     back up the files of a label in a storage now, unless that is done

A set is a backup of the database and the files of the same label: secrets, .env, compose.override.yaml, DAGs, plugins,
logs and artifacts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backup_service import (
    BACKUP_SECONDS,
    QUERY_SECONDS,
    RETRY_SECONDS,
    EngineError,
    Service,
    existing_labels,
    log,
    loop,
    series,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from subprocess import CompletedProcess

ENVIRONMENTS: Final = Path("/run/secrets/restic.json")
"""restic's environment for each storage: repository, passphrase and log-in."""
SECRETS: Final = Path("/run/secrets/stack_secrets.json")
FOLDERS: Final = ("dags", "plugins", "logs", "artifacts")
STATE_FILES: Final = (".env", "compose.override.yaml", "compose.override.yml")
SET: Final = Path("/set")
NO_REPOSITORY: Final = 10
"""restic's exit code: https://restic.readthedocs.io/en/stable/075_scripting.html."""
INCOMPLETE: Final = 3
"""restic's exit code of a backup that lacks files: some could not be read, or were removed meanwhile."""
RESTIC: Final = ("restic", "--cache-dir=/tmp/cache", "--retry-lock=1m")
"""Without a cache restic asks S3 once for each folder of the backup before: two for each try of a task."""


def sources() -> list[str]:
    """Return the files and folders of a set that exist."""
    state = [SET / "state" / name for name in STATE_FILES]
    return [str(path) for path in (SECRETS, *(SET / name for name in FOLDERS), *state) if path.exists()]


def by_label(text: str) -> dict[str, list[str]]:
    """Return the snapshots of each label, the oldest first, from `restic snapshots --json`."""
    snapshots: dict[str, list[str]] = {}
    for snapshot in json.loads(text or "[]"):
        for label in snapshot.get("tags") or []:
            snapshots.setdefault(label, []).append(snapshot["id"])
    return snapshots


class Files:
    """The snapshots of files in one storage."""

    def __init__(self, service: Service, storage: str, environment: dict[str, str]) -> None:
        self.service = service
        self.storage = storage
        self.environment = environment
        self.retry_at = 0.0
        self.known: dict[str, list[str]] | None = None

    def restic(
        self, *arguments: str, allowed: tuple[int, ...] = (0,), seconds: float = BACKUP_SECONDS
    ) -> CompletedProcess[str]:
        """Run restic on the storage."""
        return self.service.run(*RESTIC, *arguments, allowed=allowed, environment=self.environment, seconds=seconds)

    def measure(self, name: str, *, value: bool) -> None:
        """Update a metric of the storage."""
        self.service.metrics[series(name, repository=self.storage)] = float(value)

    def snapshots(self) -> dict[str, list[str]]:
        """Return the snapshots of each label; create the repository before the first one."""
        try:
            return by_label(self.restic("snapshots", "--json", seconds=QUERY_SECONDS).stdout)
        except EngineError as error:
            if f"(exit {NO_REPOSITORY})" not in str(error):
                raise
        self.restic("init")
        return {}

    def make(self, label: str) -> None:
        """Back up the files of a label; the repository exists."""
        started = time.monotonic()
        arguments = (f"--tag={label}", "--host=airflow-ha", "--group-by=host", "--quiet")
        result = self.restic("backup", *arguments, *sources(), allowed=(0, INCOMPLETE))
        lacks_files = result.returncode == INCOMPLETE
        self.measure("airflow_ha_backup_files_incomplete", value=lacks_files)
        log(f"{self.storage}: {label}: files saved in {time.monotonic() - started:.1f} s")
        if lacks_files:
            log(f"{self.storage}: {label}: these files could not be read:\n{result.stderr.strip()}")

    def remove_lost(self, snapshots: dict[str, list[str]], labels: list[str]) -> None:
        """Remove the files of sets whose backup of the database is gone."""
        if lost := [identity for label, known in snapshots.items() if label not in labels for identity in known]:
            # Removes the locks of killed processes only: with one of them, `forget` fails.
            self.restic("unlock")
            self.restic("forget", "--prune", *lost)

    def tick(self) -> bool:
        """Back up the files of the newest label, and return whether that is done.

        Without a backup of the database nothing is: the storage is new, or not mounted; only its service knows which.
        """
        labels = existing_labels(self.storage)
        if self.known is not None and labels and labels[-1] in self.known:
            return True
        if time.monotonic() < self.retry_at:
            return False
        self.measure("airflow_ha_backup_files_up", value=False)
        if not labels:
            return False
        self.retry_at = time.monotonic() + RETRY_SECONDS
        snapshots = self.snapshots()
        if labels[-1] not in snapshots:
            self.make(labels[-1])
            self.remove_lost(snapshots, labels)
            snapshots = self.snapshots()
        self.known, self.retry_at = snapshots, 0.0
        self.measure("airflow_ha_backup_files_up", value=True)
        return True


def storages(service: Service) -> dict[str, Files]:
    """Return the files of each storage."""
    environments: dict[str, dict[str, str]] = json.loads(ENVIRONMENTS.read_text(encoding="utf-8"))
    return {name: Files(service, name, environment) for name, environment in environments.items()}


def tick_all(all_files: Iterable[Files]) -> None:
    """Back up the files in each storage; one that is down does not keep the others from it."""
    for files in all_files:
        try:
            if files.tick():
                files.service.problems.pop(files.storage, None)
        except EngineError as error:
            files.service.problems[files.storage] = str(error)
            log(f"error: {files.storage}: {error}")


def make_now(storage: str, label: str) -> int:
    """Make the backup of a label's files, and return the exit code."""
    files = storages(Service())[storage]
    try:
        if label not in files.snapshots():
            files.make(label)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["now"]:
        sys.exit(make_now(*sys.argv[2:4]))
    service = Service()
    all_files = storages(service)
    loop(service, lambda: tick_all(all_files.values()))
