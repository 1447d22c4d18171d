"""Restore drills: the database is lost or its restore is killed, and `./ops/stack restore` brings the stack back.

`./ops/stack drill database-lost` runs one on a running stack with the profile `backup`; restore_results.py keeps the
results. Unlike other drills they replace the database, so they ask for confirmation and are not part of `--all`.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops import backup_config, backup_storage, compose, data_tier, restored, sample_database, settings_file
from ops.backup import creation
from ops.backup.restoration import REPLICATED, SINGLE
from ops.bench.workloads import DAGS, FAN_OUT
from ops.clients.airflow import connect, run_path
from ops.dag_file import DELETE_SECONDS
from ops.drills.runner import HEALTHY_SECONDS, is_healthy
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.pipeline import verify_pipeline
from ops.project import ROOT, dags_folder
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ops.backup.restoration import Tier
    from ops.clients.airflow import AirflowClient
    from ops.project import Project

LOST_SECONDS: Final = 60.0
"""Limit of the age of the oldest row that is lost (RPO)."""
READY_SECONDS: Final = 600.0
"""Limit from the loss until every service is healthy on the restored database (RTO)."""
LOAD: Final = {"tasks": 1000, "seconds": 1.0}
"""The tasks that run when the database is lost: more than its random moment can wait for."""
FIRST_RESTORE_SECONDS: Final = 60.0
"""How long a restore takes, until the first one is measured."""
KILLED_BEFORE: Final = 0.9
"""The part of the duration of a restore in which it may be killed."""
WRITE: Final = """
CREATE TABLE IF NOT EXISTS written (at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO written DEFAULT VALUES RETURNING extract(epoch FROM at) \\watch 1
"""
READ: Final = "SELECT extract(epoch FROM at) FROM written;"


@dataclass(frozen=True)
class RestoreDrill:
    """One fault that a restore follows.

    Attributes:
        name: The name on the command line.
        sentence: The fault in one phrase.
        loses_volumes: Whether the volumes of all Postgres nodes are deleted.
        kills_restore: Whether a first restore gets SIGKILL at a random moment, and a second one follows.
    """

    name: str
    sentence: str
    loses_volumes: bool = False
    kills_restore: bool = False


RESTORE_DRILLS: Final = (
    RestoreDrill("database-lost", "delete the volumes of Postgres at a random moment", loses_volumes=True),
    RestoreDrill("restore-killed", "SIGKILL to a restore at a random moment, then another", kills_restore=True),
)


@dataclass(frozen=True)
class RestoreOutcome:
    """What one repetition of a drill lost, and how long it took. The keys of restores.json are its attributes.

    Attributes:
        drill: The drill's name.
        tier: `data` or `data-ha`.
        repository: Where it is, by repository_kind().
        gib: The size of the database beside Airflow's.
        lost_rows: The rows that were acknowledged before the fault and are not restored; one was written each second.
        lost_seconds: The age of the oldest of them at the fault.
        killed_after: Seconds after which the first restore was killed; None if it was not.
        ready_after: Seconds from the fault until `restore` ended with every service healthy.
        pipeline_after: Seconds from the fault until a run of the pipeline succeeded; None if it failed.
    """

    drill: str
    tier: str
    repository: str
    gib: float
    lost_rows: int
    lost_seconds: float
    killed_after: float | None
    ready_after: float
    pipeline_after: float | None

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each broken promise."""
        promises = {
            f"rows of {self.lost_seconds:.1f} s are lost, promised at most {LOST_SECONDS:.0f} s": self.lost_seconds
            <= LOST_SECONDS,
            f"ready after {self.ready_after:.0f} s, promised within {READY_SECONDS:.0f} s": self.ready_after
            <= READY_SECONDS,
            "the pipeline did not succeed afterwards": self.pipeline_after is not None,
        }
        return tuple(sentence for sentence, is_kept in promises.items() if not is_kept)


@dataclass
class RestoredStack:
    """The stack that restore drills run on.

    Attributes:
        project: The stack.
        settings: Its .env.
        api: A client of its REST API.
        report: Prints a line of progress.
        gib: The size of the database beside Airflow's.
        storage: The storage to restore from; None for the first that has the backup.
        restore_seconds: How long the last complete restore took.
    """

    project: Project
    settings: Mapping[str, str]
    api: AirflowClient
    report: Callable[[str], None]
    gib: float
    storage: str | None = None
    restore_seconds: float = FIRST_RESTORE_SECONDS

    @property
    def name(self) -> str:
        """The compose project."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    @property
    def tier(self) -> Tier:
        """The data tier."""
        return REPLICATED if "data-ha" in settings_file.profiles(self.settings) else SINGLE


@contextmanager
def prepare_restores(
    project: Project,
    settings: Mapping[str, str],
    gib: float,
    report: Callable[[str], None],
    storage: str | None = None,
) -> Iterator[RestoredStack]:
    """Add the load's DAG and a database of that size to a running stack, and back both up.

    Args:
        project: The stack.
        settings: Its .env.
        gib: The size of the database beside Airflow's.
        report: Prints a line of progress.
        storage: The storage to restore from; None for the first that has the backup.

    Raises:
        StackError: The stack makes no backups there, or cannot be prepared.
    """
    if not backup_config.is_on(settings):
        raise StackError(
            "cannot run a restore drill: the profile backup is off",
            where=project.shown(project.env_file),
            hint="run ./ops/stack up --profile backup, with your other profiles",
        )
    if storage not in (None, *backup_storage.names(settings)):
        raise StackError(
            f"cannot restore from {storage}: the stack stores no backups there",
            where="--from",
            hint="set BACKUP_STORAGE in .env, then run ./ops/stack up",
        )
    stack = RestoredStack(project, settings, connect(project, settings, report), report, gib, storage)
    with (
        DAGS.in_place(dags_folder(project, settings), stack.api, report),
        sample_database.sample_database(stack.name, gib, report),
    ):
        with stack_lock(project, "drill", report):
            creation.make(settings, report)
        yield stack


def run_restore_drill(drill: RestoreDrill, stack: RestoredStack) -> RestoreOutcome:
    """Run one repetition of a drill.

    Raises:
        StackError: The drill could not be run, or the restore failed. Broken promises are in the outcome.
    """
    project, report = stack.project, stack.report
    interval = float(backup_config.setting(stack.settings, "BACKUP_WAL_SECONDS"))
    with stack_lock(project, "drill", report):
        model = compose.config(project)
        wait(lambda: is_healthy(stack.name, model), HEALTHY_SECONDS, "every service is healthy", report)
        run = stack.api.trigger(FAN_OUT, LOAD)
        with row_each_second(stack.name) as written:
            delay = interval * random.uniform(1, 2)  # noqa: S311  no secret
            report(f"tasks run and rows are written for {delay:.0f} s")
            time.sleep(delay)
            failed_at = time.time()
            if drill.loses_volumes:
                report(f"{drill.name}: deleting {', '.join(lose_volumes(stack))}")
            rows = [at for at in written() if float(at) <= failed_at]
    killed_after = kill_restore(stack) if drill.kills_restore else None
    restore(stack)
    ready_after = time.time() - failed_at
    lost_rows, lost_seconds = losses(rows, sample_database.run(stack.name, READ).split(), failed_at)
    report(f"ready after {ready_after:.0f} s; {lost_rows} rows lost, the oldest {lost_seconds:.1f} s before the fault")
    # Its tasks would run beside the pipeline. The restored database may be older than the run.
    ended = {"json": {"state": "success"}, "timeout": DELETE_SECONDS}
    stack.api.ask("PATCH", run_path(FAN_OUT, run.run_id), missing=True, **ended)
    restored.release(project)
    pipeline_after = time.time() - failed_at if pipeline_succeeds(stack) else None
    tier = "data-ha" if stack.tier is REPLICATED else "data"
    return RestoreOutcome(
        drill=drill.name,
        tier=tier,
        repository=repository_kind(stack.settings, stack.storage),
        gib=stack.gib,
        lost_rows=lost_rows,
        lost_seconds=lost_seconds,
        killed_after=killed_after,
        ready_after=ready_after,
        pipeline_after=pipeline_after,
    )


@contextmanager
def row_each_second(name: str) -> Iterator[Callable[[], list[str]]]:
    """Write a row each second until the block ends or Postgres does.

    Yields:
        A function that returns the times of the acknowledged rows so far, as seconds since the epoch.
    """
    psql = (*sample_database.PSQL, f"--dbname={sample_database.NAME}")
    with tempfile.TemporaryFile("w+") as statements, tempfile.NamedTemporaryFile("r") as output:
        statements.write(WRITE)
        statements.seek(0)
        command = ["docker", "exec", "--interactive", data_tier.writable_postgres(compose.instances(name)), *psql]
        with subprocess.Popen(command, stdin=statements, stdout=output, stderr=subprocess.DEVNULL) as child:

            def written() -> list[str]:
                # Without the last line, which may be incomplete.
                return Path(output.name).read_text(encoding="utf-8").split("\n")[:-1]

            try:
                yield written
            finally:
                child.terminate()


def lose_volumes(stack: RestoredStack) -> list[str]:
    """Kill all nodes of Postgres at once, delete their volumes, and return the volumes' names."""
    volumes = [f"{stack.name}_{volume}" for volume in (stack.tier.restored, *stack.tier.copied)]
    compose.remove_volumes(volumes)
    return volumes


def start_restore(stack: RestoredStack) -> subprocess.Popen[bytes]:
    """Start `./ops/stack restore` as an operator does; it takes the stack's lock itself."""
    environment = {**os.environ, "STACK_STATE_DIR": str(stack.project.state)}
    place = [f"--from={stack.storage}"] if stack.storage else []
    return subprocess.Popen([ROOT / "ops/stack", "restore", "--yes", *place], env=environment)


def restore(stack: RestoredStack) -> None:
    """Restore everything that the repository has.

    Raises:
        StackError: It failed; it printed the reason.
    """
    started = time.monotonic()
    with start_restore(stack) as child:
        code = child.wait()
    if code != 0:
        raise StackError(f"cannot go on with the drill: restore ended with exit code {code}", code=FAILURE)
    stack.restore_seconds = time.monotonic() - started


def kill_restore(stack: RestoredStack) -> float | None:
    """Start a restore and kill its process at a random moment; return after how many seconds, None if it had ended."""
    seconds = random.uniform(0, KILLED_BEFORE * stack.restore_seconds)  # noqa: S311  no secret
    with start_restore(stack) as child:
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            stack.report(f"the restore was killed after {seconds:.1f} s")
            return seconds
    stack.report(f"the restore ended before it could be killed after {seconds:.1f} s")
    return None


def losses(written: list[str], restored_rows: list[str], failed_at: float) -> tuple[int, float]:
    """Return how many rows are lost, and the age of the oldest of them at the fault.

    Args:
        written: The times of the rows that were acknowledged before the fault, seconds since the epoch.
        restored_rows: Those in the restored database.
        failed_at: The time of the fault.
    """
    lost = set(written).difference(restored_rows)
    return len(lost), max((failed_at - float(at) for at in lost), default=0.0)


def pipeline_succeeds(stack: RestoredStack) -> bool:
    """Run the pipeline on the restored stack, and return whether it succeeded."""
    try:
        verify_pipeline(stack.project, settings_file.read(stack.project))
    except StackError as error:
        stack.report(error.what)
        return False
    return True


def repository_kind(settings: Mapping[str, str], storage: str | None) -> str:
    """Return where the repositories are: `volume`, `folder`, `s3` or two of them, and which one was restored from.

    Args:
        settings: Of .env.
        storage: The storage that was named for the restore; None without a name.
    """
    kinds = {backup_storage.LOCAL: "folder" if settings.get("BACKUP_FOLDER") else "volume"}
    stored = [kinds.get(name, name) for name in backup_storage.names(settings)]
    return f"{kinds.get(storage, storage)} of {','.join(stored)}" if storage and len(stored) > 1 else ",".join(stored)
