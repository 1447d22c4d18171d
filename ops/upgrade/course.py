"""The course of an upgrade: steps that change the stack, and the automatic return when one fails."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from ops import compose, data_tier, rolling, settings_file
from ops.clients.airflow import connect
from ops.deployment import configure, start
from ops.errors import FAILURE, StackError, reason_of
from ops.pipeline import verify_pipeline
from ops.rollout import roll_out
from ops.services import ETCD_NODES, POSTGRES_NODES, REDIS_NODES, SENTINELS
from ops.silenced_alerts import silenced_alerts
from ops.upgrade import database_copy, journal, revision
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from ops.images.resolve import ResolvedImage
    from ops.project import Project
    from ops.upgrade.journal import Journal

DATA_SERVICES: Final = ("postgres", "redis", *ETCD_NODES, *POSTGRES_NODES, *REDIS_NODES, *SENTINELS)
UNFINISHED: Final = ("queued", "running", "restarting")
"""The states of task instances that a worker has, or gets from the broker."""
LONGEST_CHANGE: Final = timedelta(hours=1)
"""Time for the copy, the migration and the start, or the return; later alerts are sent."""


@dataclass(frozen=True)
class Upgrade:
    """One upgrade.

    Attributes:
        project: The stack, in the operator's checkout.
        version: The commit to check out; empty: the checkout as it is.
        images: The images of the new version.
        migrates: Whether it changes the schema of the database.
        report: Prints a line of progress.
    """

    project: Project
    version: str
    images: Mapping[str, ResolvedImage]
    migrates: bool
    report: Callable[[str], None]

    @property
    def settings(self) -> dict[str, str]:
        """The settings of .env."""
        return settings_file.read(self.project)

    @property
    def name(self) -> str:
        """The compose project's name."""
        return self.settings["COMPOSE_PROJECT_NAME"]


@dataclass(frozen=True)
class Step:
    """One step: its name in the progress, and its function."""

    name: str
    run: Callable[[Upgrade], None]


def steps(upgrade: Upgrade) -> list[Step]:
    """Return the steps of an upgrade in their order.

    Where the schema changes, Airflow stops: the old version fails on the new schema, and the new one on the old.
    """
    files = [Step("check out the new version", check_out), Step("write the settings", write_settings)]
    if not upgrade.migrates:
        return [*files, Step("replace containers one at a time", replace_containers), Step("verify", verify)]
    return [
        Step("drain the workers", drain),
        Step("stop Airflow", stop_airflow),
        Step("copy the database", copy_database),
        *files,
        Step("replace Postgres and Redis", replace_data_tier),
        Step("migrate the database and start", start_all),
        Step("verify", verify),
    ]


def run(upgrade: Upgrade, record: Journal) -> None:
    """Run the steps; when one fails, or Ctrl-C interrupts it, return to the version before.

    Args:
        upgrade: The upgrade.
        record: What the way back needs.

    Raises:
        StackError: A step failed, and the error states whether the version before runs again; or no Alertmanager
            answers, and nothing was changed.
    """
    with silenced(upgrade):
        run_steps(upgrade, record)


def silenced(upgrade: Upgrade) -> AbstractContextManager[None]:
    """Silence the alerts of an upgrade that stops Airflow, also for its return; the other way raises none."""
    if not upgrade.migrates:
        return nullcontext()
    # In the folder of the new version, a path relative to compose/ would lead into that folder.
    settings = upgrade.settings | {"SECRETS_DIR": str(upgrade.project.secrets)}
    # The drain waits for the tasks, and so does each worker.
    longest = LONGEST_CHANGE + 2 * timedelta(seconds=worker_stop_seconds(compose.config(upgrade.project)))
    return silenced_alerts(settings, longest, "upgrade", upgrade.report)


def run_steps(upgrade: Upgrade, record: Journal) -> None:
    """Do the work of `run`, without regard to alerts."""
    project, report = upgrade.project, upgrade.report
    journal.begin(project, record)
    started = time.monotonic()
    for step in steps(upgrade):
        began = time.monotonic()
        report(step.name)
        try:
            step.run(upgrade)
        except (Exception, KeyboardInterrupt) as error:
            report(f"{step.name}: failed after {time.monotonic() - began:.0f} s: {reason_of(error)}")
            seconds = go_back(project, report)
            raise StackError(
                f"cannot upgrade: {step.name}: {reason_of(error)}; {seconds:.0f} s later the version before runs again",
                where=getattr(error, "where", ""),
                hint="fix the cause above, then run this again",
                code=FAILURE,
            ) from error
        report(f"{step.name}: done in {time.monotonic() - began:.0f} s")
    journal.end(project)
    if upgrade.migrates and settings_file.has_own_data(upgrade.settings):
        database_copy.discard(upgrade.name)
    report(f"upgraded in {time.monotonic() - started:.0f} s")


def go_back(project: Project, report: Callable[[str], None]) -> float:
    """Return to the version before: its files, settings and images, and its database if that was copied.

    Returns:
        The seconds that it took.

    Raises:
        StackError: It failed; the record stays, and `./ops/stack upgrade` tries again.
    """
    report("returning to the version before")
    started = time.monotonic()
    try:
        restore(project, report)
    except StackError as error:
        raise StackError(
            f"cannot return to the version before: {error.what}",
            where=error.where,
            hint=f"{error.hint}; then run ./ops/stack upgrade, which tries again".removeprefix("; then "),
            code=FAILURE,
        ) from error
    journal.end(project)
    return time.monotonic() - started


def restore(project: Project, report: Callable[[str], None]) -> None:
    """Do the work of `go_back`; each part may be done again."""
    record = journal.read(project)
    if record is None:
        return
    if record.version:
        revision.switch(project.root, record.version)
    journal.restore_files(project)
    settings = settings_file.read(project)
    if record.has_copy:
        model = compose.config(project)
        stop_airflow_services(model, report)
        start_data_tier(project, model, report)
        restore_database(settings["COMPOSE_PROJECT_NAME"], report)
    else:
        rolling.replace_outdated(project, report)
    start(project, settings)
    verify_pipeline(project, settings)


def start_data_tier(project: Project, model: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """Replace the containers of Postgres and Redis that are not of this version, and start those that stand still."""
    rolling.replace_outdated(project, report, DATA_SERVICES)
    roll_out(project, report, services=[service for service in DATA_SERVICES if service in model["services"]])


def restore_database(name: str, report: Callable[[str], None]) -> None:
    """Let the copy take the database's place, and empty the queues.

    Without a copy an interrupted return has restored it already.
    """
    if database_copy.restore(name):
        report("the database is as it was when Airflow stopped")
    empty_queues(name)


# ---- the steps -----------------------------------------------------------------------------------------------


def check_out(upgrade: Upgrade) -> None:
    """Check the new version out in the operator's checkout."""
    if upgrade.version:
        revision.switch(upgrade.project.root, upgrade.version)


def write_settings(upgrade: Upgrade) -> None:
    """Write what containers read: .env with the new images, secrets, rules and routes."""
    configure(upgrade.project, upgrade.settings, upgrade.images)


def replace_containers(upgrade: Upgrade) -> None:
    """Replace each container that the new version changes, then start what it adds and stop what it lacks."""
    replaced = rolling.replace_outdated(upgrade.project, upgrade.report)
    upgrade.report(f"{replaced} containers are replaced")
    start(upgrade.project, upgrade.settings)


def verify(upgrade: Upgrade) -> None:
    """Verify the new version with a run of the pipeline."""
    verify_pipeline(upgrade.project, upgrade.settings)


def drain(upgrade: Upgrade) -> None:
    """Stop the schedulers, and wait until no task is queued or running, for at most a worker's time to stop.

    Tasks that remain are stopped with their worker, which then has the same time again.
    """
    model = compose.config(upgrade.project)
    stop_components(model, upgrade.report, "scheduler")
    api = connect(upgrade.project, upgrade.settings, upgrade.report)
    limit = worker_stop_seconds(model)

    def unfinished() -> int:
        params = {"state": UNFINISHED, "limit": 1}
        return int(api.ask("GET", "/dags/~/dagRuns/~/taskInstances", params=params)["total_entries"])

    try:
        wait(lambda: not unfinished(), limit, "no task is queued or running", upgrade.report)
    except StackError:
        upgrade.report(f"{unfinished()} tasks are still queued or running after {limit} s")


def stop_airflow(upgrade: Upgrade) -> None:
    """Stop every component of Airflow."""
    stop_airflow_services(compose.config(upgrade.project), upgrade.report)


def copy_database(upgrade: Upgrade) -> None:
    """Copy the database, unless it is external."""
    if settings_file.has_own_data(upgrade.settings):
        database_copy.take(upgrade.name)
        if record := journal.read(upgrade.project):
            journal.write(upgrade.project, replace(record, has_copy=True))


def replace_data_tier(upgrade: Upgrade) -> None:
    """Replace the containers of Postgres and Redis that the new version changes."""
    rolling.replace_outdated(upgrade.project, upgrade.report, DATA_SERVICES)


def start_all(upgrade: Upgrade) -> None:
    """Migrate the database and start everything: every component waits for `migrate`."""
    start(upgrade.project, upgrade.settings)


# ---- stopping --------------------------------------------------------------------------------------------------


def stop_airflow_services(model: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """Stop every component of Airflow, and no other service; workers while their tasks reach the Execution API.

    Args:
        model: The compose model.
        report: Prints a line of progress.
    """
    stop_components(model, report, "scheduler")
    stop_components(model, report, "worker", worker_stop_seconds(model))
    stop_components(model, report)


def stop_components(
    model: Mapping[str, Any], report: Callable[[str], None], component: str = "", seconds: int = compose.STOP_SECONDS
) -> None:
    """Stop the services of one component of Airflow side by side, the operator's own workers too; of all if empty."""
    components = {name: rolling.component(model, name) for name in model["services"]}
    services = [name for name, each in components.items() if each and component in ("", each)]
    instances = compose.instances(model["name"])
    running = [
        instance.id for state in ("running", "restarting") for instance in compose.in_state(instances, state, services)
    ]
    compose.stop(running, seconds, component or "Airflow", report)


def worker_stop_seconds(model: Mapping[str, Any]) -> int:
    """Return the longest time that a worker has to finish its tasks (WORKER_STOP_GRACE)."""
    return max(
        rolling.stop_seconds(service.get("stop_grace_period"))
        for name, service in model["services"].items()
        if rolling.component(model, name) == "worker"
    )


def empty_queues(name: str) -> None:
    """Delete the messages of the newer version, which belong to tasks that the restored database does not know."""
    members = data_tier.members(name)
    instances = compose.instances(name)
    services = (data_tier.primaries(members) & set(REDIS_NODES)) or {"redis"}
    for instance in compose.in_state(instances, "running", sorted(services)):
        data_tier.ask_redis(instance.id, "flushall")
