"""The cost of backups for tasks: the same fan-out without a backup, and while full backups follow one another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from ops import backup_config, backup_storage, compose, data_tier, settings_file
from ops.backup.creation import PROGRAMS
from ops.bench.targets import wait_until_idle
from ops.bench.workloads import FAN_OUT, run_and_wait
from ops.errors import FAILURE, StackError
from ops.sample_database import sample_database
from ops.services import BACKUP_FILES, BACKUP_NODES, POSTGRES_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from ops.bench.targets import Measurement

NAME = "backup"
TASKS = 300
GIB = 1.0
WITHOUT, DURING = "without", "during full backups"
RUN, BACKUP = "seconds", "seconds a backup"
SUMMARY = (
    f"The same fan-out of {TASKS} no-op tasks without a backup, and while full backups of the database and the files"
    f" follow one another without pause; with {GIB:g} GiB beside Airflow's database."
)
# Without the removal of old backups, so that those of the operator stay.
FULL: Final = (
    "PGPASSWORD=$(cat /run/secrets/postgres_superuser_password) exec pgbackrest backup --type=full --no-expire-auto"
    ' --log-level-console=info "$@"'
)
LABEL_LINE: Final = "new backup label = "
SERVICES: Final = dict(
    zip(("postgres", *POSTGRES_NODES), (*BACKUP_NODES["data"], *BACKUP_NODES["data-ha"]), strict=True)
)
"""The backup service beside each node of Postgres."""


def execute(container: str, *command: str) -> str:
    """Return the output of an engine in a backup service.

    Raises:
        StackError: It failed.
    """
    result = data_tier.execute(container, *command)
    if result.returncode != 0:
        raise StackError(
            f"cannot back up during the bench: {data_tier.last_line(result.stdout + result.stderr)}",
            hint="run ./ops/stack logs backup backup-files",
            code=FAILURE,
        )
    return result.stdout


def services(project: str) -> tuple[str, str]:
    """Return the containers that back up the database of the primary, and the files."""
    by_service = compose.instances(project)
    is_replicated = not set(POSTGRES_NODES).isdisjoint(by_service)
    primaries = data_tier.primaries(data_tier.members(project)) if is_replicated else {"postgres"}
    database = next(SERVICES[node] for node in SERVICES if node in primaries)
    (files,) = by_service[BACKUP_FILES]
    return by_service[database][0].id, files.id


def full_backup(database: str, files: str, storage: str) -> None:
    """Make a full backup of the database and the files in a storage, and remove the former from it.

    The service of files removes the latter after its next backup.
    """
    repository = f"--repo={backup_storage.NUMBERS[storage]}"
    output = execute(database, "sh", "-c", FULL, "sh", repository)
    label = output.partition(LABEL_LINE)[2].split()[0]
    try:
        execute(files, "python3", f"{PROGRAMS}/backup_files.py", "now", storage, label)
    finally:
        execute(database, "pgbackrest", "expire", repository, f"--set={label}")


@contextmanager
def full_backups(project: str, storage: str) -> Iterator[list[float]]:
    """Make full backups in a storage, one after the other, for the duration of the block.

    Yields:
        The seconds that each one took.
    """
    database, files = services(project)
    stop, seconds = threading.Event(), list[float]()

    def repeat() -> None:
        while not stop.is_set():
            started = time.monotonic()
            full_backup(database, files, storage)
            seconds.append(time.monotonic() - started)

    with ThreadPoolExecutor(1) as pool:
        backups = pool.submit(repeat)
        try:
            yield seconds
        finally:
            stop.set()
            backups.result()


def compare(measurement: Measurement) -> None:
    """Measure both variants, in alternating order.

    Raises:
        StackError: The stack makes no backups, or one failed.
    """
    target, report = measurement.target, measurement.report
    settings = settings_file.read(measurement.project)
    if not backup_config.is_on(settings):
        raise StackError(
            f"cannot run the bench {NAME}: the profile backup is off",
            hint="run ./ops/stack up --profile backup, with your other profiles",
        )
    with sample_database(target.project, GIB, report):
        run_and_wait(target.api, FAN_OUT, {"tasks": TASKS}, report)  # warms up
        for number in measurement.round_numbers():
            for variant in (WITHOUT, DURING) if number % 2 else (DURING, WITHOUT):
                wait_until_idle(target, report)
                backups: AbstractContextManager[list[float]] = nullcontext([])
                if variant == DURING:
                    backups = full_backups(target.project, backup_storage.names(settings)[0])
                with backups as seconds:
                    sample = {RUN: run_and_wait(target.api, FAN_OUT, {"tasks": TASKS}, report).seconds}
                if seconds:
                    sample[BACKUP] = sum(seconds) / len(seconds)
                measurement.add(number, variant, sample, f"{sample[RUN]:.1f} s")
