"""A verification: a backup restored into a throw-away stack beside the live one, checked, run and removed.

The throw-away stack has its own compose project, volumes, secrets and DAGs, all from the backup, one instance of each
component, and a port on 127.0.0.1 only. It neither archives nor sends alerts, and its DAGs are held.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_ha.sizes import GIB, MIB
from ops import compose, deployment, pipeline, preflight, restored, settings_file
from ops.backup import new_stack, repository, restoration, restored_database, saved_files
from ops.backup.restoration import Restoration
from ops.clients.airflow import connect
from ops.errors import StackError
from ops.project import PIPELINE, Project
from ops.services import SCALABLE, replicas_variable
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ops.backup.repository import Repository
    from ops.backup.sets import BackupSet
    from ops.clients.airflow import AirflowClient
    from ops.images.resolve import ResolvedImage

MEMORY_NEEDED: Final = 2 * GIB
"""Available memory: the idle throw-away stack takes 1.4 GiB, with a run of the pipeline 1.5 GiB."""
DISK_MARGIN: Final = 2 * GIB
"""Disk space that a verification leaves."""
SETTINGS: Final = {
    "COMPOSE_PROFILES": "data",
    "BIND_ADDRESS": "127.0.0.1",
    "WORKER_CONCURRENCY": "2",
    "WORKER_MEMORY": "1536m",
    **{replicas_variable(service): "1" for service in SCALABLE},
}
"""The size of the throw-away stack. A backup of the replicated Postgres starts on a single one too."""
START: Final = "Postgres, migration, hold of DAGs"
CANARY: Final = "canary_dag"
CANARY_SECONDS: Final = 180.0


class Result(NamedTuple):
    """A check: its name, its problems, what it found, and the seconds that it took."""

    check: str
    problems: tuple[str, ...]
    found: str
    seconds: float


def prepare(
    project: Project, saved: Mapping[str, str], source: Repository, chosen: BackupSet, report: Callable[[str], None]
) -> Restoration:
    """Check the machine, remove what a killed verification left, and return the restore into the throw-away stack.

    Args:
        project: The live stack.
        saved: The settings of the backup.
        source: The repository.
        chosen: The backup.
        report: Prints a line of progress.

    Raises:
        StackError: A check failed; nothing was started.
    """
    preflight.check_memory(MEMORY_NEEDED)
    preflight.check_disk("verify a backup", int(chosen.size * restored_database.ROOM) + DISK_MARGIN)
    name = f"{settings_file.read(project)['COMPOSE_PROJECT_NAME']}-verify"
    remove_stack(Project(project.root, project.state / "stacks" / name), name)
    throwaway, settings = new_stack.prepare(project, saved, name)
    return Restoration(
        throwaway, settings | SETTINGS, source, chosen, at=None, is_exact=True, report=report, is_new_stack=True
    )


def verify(planned: Restoration, images: Mapping[str, ResolvedImage]) -> list[Result]:
    """Return the result of each check; the first step that fails is the last one.

    Args:
        planned: Of prepare().
        images: The images of the profile `data`.
    """
    steps: tuple[tuple[str, Callable[[], str | list[Result]]], ...] = (
        ("restore of the database", partial(restore_database, planned)),
        ("files of the backup", partial(restore_files, planned)),
        (START, partial(start_database, planned, images)),
        ("checks of the database", partial(check_database, planned)),
        (CANARY, partial(run_canary, planned)),
        (PIPELINE, partial(run_pipeline, planned)),
    )
    results: list[Result] = []
    for name, step in steps:
        planned.report(f"verifying: {name}")
        started = time.monotonic()
        try:
            found = step()
        except StackError as error:
            return [*results, Result(name, (error.what,), "", time.monotonic() - started)]
        results += found if isinstance(found, list) else [Result(name, (), found, time.monotonic() - started)]
    return results


def restore_database(planned: Restoration) -> str:
    """Restore the database, and return what was restored."""
    restoration.restore_database(planned)
    return f"{planned.chosen.size / MIB:.0f} MiB"


def restore_files(planned: Restoration) -> str:
    """Read every file of the backup, and restore secrets, DAGs and plugins."""
    read_all = ("sh", "-c", 'exec "$@" >/dev/null', "sh", *repository.RESTIC, "dump", planned.chosen.files, "/")
    result = repository.run(planned.source, repository.FILES_USER, *read_all)
    if result.returncode != 0:
        raise repository.failure("cannot read the files of the backup", result, "run ./ops/stack backup list")
    restoration.restore_files(planned)
    return "all read; secrets, DAGs and plugins restored"


def start_database(planned: Restoration, images: Mapping[str, ResolvedImage]) -> str:
    """Start Postgres and Redis on the restored database, migrate it, and hold all DAGs."""
    saved_files.renew_token_secrets(planned.project)
    deployment.configure(planned.project, planned.settings, images)
    planned.in_volume(planned.tier.restored, restored_database.SWITCH)
    deployment.start(planned.project, planned.settings, [planned.tier.primary])
    restoration.set_passwords(planned)
    deployment.start(planned.project, planned.settings, [*planned.tier.others, "migrate"])
    held = restored.hold(planned.project, keep=())
    return f"{len(held['held'])} DAGs held"


def check_database(planned: Restoration) -> list[Result]:
    """Return the results of the checks inside Airflow's image, and whether the restored database has every row."""
    report = restored.check(planned.project)
    encrypted, rows = report["encrypted"], planned.chosen.rows
    found = {
        "schema": f"revision {report['revision']}, Airflow's head",
        "pages and indexes": "amcheck of every table and index",
        "encrypted values": f"{encrypted} decrypted" if encrypted else "none: no Connection or Variable is encrypted",
    }
    results = [
        Result(each["check"], tuple(each["problems"]), found[each["check"]], each["seconds"])
        for each in report["checks"]
    ]
    lost = tuple(restored.lost_rows(rows, report["rows"]))
    counted = f"{sum(rows.values())} in {len(rows)} tables" if rows else "not compared: the backup has no record"
    return [*results, Result("rows", lost, counted, 0.0)]


def run_canary(planned: Restoration) -> str:
    """Start Airflow, and run the canary."""
    deployment.start(planned.project, planned.settings, list(pipeline.PIPELINE_PATH))
    api = connect(planned.project, planned.settings, planned.report)
    what = f"Airflow has parsed {CANARY}"
    wait(lambda: api.has_dag(CANARY), pipeline.DAG_SECONDS, what, planned.report)
    return run_dag(planned, api, CANARY, CANARY_SECONDS)


def run_pipeline(planned: Restoration) -> str:
    """Run the pipeline through gateway, scheduler, Redis, worker and Postgres."""
    api = connect(planned.project, planned.settings, planned.report)
    return run_dag(planned, api, PIPELINE, pipeline.PIPELINE_SECONDS)


def run_dag(planned: Restoration, api: AirflowClient, dag_id: str, seconds: float) -> str:
    """Run a DAG that Airflow has parsed, and return its state.

    Raises:
        StackError: The run failed, or has not ended in time.
    """
    run = api.wait_for(api.trigger(dag_id), planned.report, timeout=seconds)
    if run.state != "success":
        raise pipeline.failed_run_error(api, run)
    return run.state


@contextlib.contextmanager
def removed_afterwards(planned: Restoration) -> Iterator[None]:
    """Remove the throw-away stack after the block, whatever happened; Ctrl-C does not end that."""
    try:
        yield
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            planned.report(f"removing the stack {planned.name}")
            remove_stack(planned.project, planned.name)
        finally:
            signal.signal(signal.SIGINT, before)


def remove_stack(throwaway: Project, name: str) -> None:
    """Remove the containers, networks and volumes of a compose project, and the folder of its state."""
    label = f"--filter=label=com.docker.compose.project={name}"
    if containers := compose.docker("ps", "--all", "--quiet", label).split():
        compose.docker("rm", "--force", "--volumes", *containers)
    if networks := compose.docker("network", "ls", "--quiet", label).split():
        compose.docker("network", "rm", *networks)
    compose.remove_volumes(compose.volumes(name))  # an interrupted engine uses one, and has no label
    shutil.rmtree(throwaway.state, ignore_errors=True)
