"""The change of a stack to a restored database: nothing changes before the restored one is complete.

1. The database is restored beside the current one, while the stack runs on.
2. Missing secrets and settings come from the set; on an empty machine DAGs, logs and artifacts too.
3. The stack stops, the databases are exchanged in one step, Redis is emptied, and the keys of tokens are renewed.
4. Postgres starts, Airflow's schema is migrated, DAGs are held before any scheduler starts, the database is checked.
5. The stack starts.

A failure in 3 or 4 exchanges the databases back and starts the stack as it was.
"""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ops import backup_storage, compose, data_tier, deployment, postgres_roles, rotation_state, secrets_store
from ops.backup import restored_database, saved_files
from ops.errors import FAILURE, StackError, reason_of
from ops.notification_secrets import OPTIONAL_SECRETS
from ops.project import dags_folder, plugins_folder
from ops.services import ETCD_NODES, POSTGRES_NODES, REDIS_NODES, SENTINELS
from ops.settings_file import profiles
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from ops.backup.repository import Repository
    from ops.backup.sets import BackupSet
    from ops.compose import Instance
    from ops.images.resolve import ResolvedImage
    from ops.project import Project

LOST_SECONDS: Final = 10
"""Time for a container to stop where no Postgres runs: Airflow waits in vain for its database. Prometheus and
Alertmanager, which keep their data, stop in less."""
SEND_SECONDS: Final = 60.0
WRITABLE_SECONDS: Final = 60.0
PSQL: Final = ("psql", "--no-psqlrc", "--username=postgres", "--tuples-only", "--no-align")
END_OF_LOG: Final = ("--command=SELECT pg_current_xact_id()", "--command=SELECT pg_switch_wal()")
"""A transaction, since a recovery stops at the first one after its target, and the end of the segment."""
WAITING_LOG: Final = (
    "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    " AND current_setting('archive_command') <> 'false'"
)
"""The segments that wait; none on the database of a killed restore, whose log goes nowhere."""


@dataclass(frozen=True)
class Tier:
    """The volumes and services of a data tier.

    Attributes:
        primary: The service that starts on the restored database.
        restored: Its volume.
        copied: The volumes of replicas, which take a new copy.
        records: The volumes of etcd. Patroni's record of the leader and of the replica in sync returns with the former
            database: without it a stale replica could become the primary, and the former primary would follow it.
        emptied: The volumes of Redis, whose content belongs to the other database.
        others: The other services of the tier.
    """

    primary: str
    restored: str
    copied: tuple[str, ...]
    records: tuple[str, ...]
    emptied: tuple[str, ...]
    others: tuple[str, ...]


SINGLE: Final = Tier("postgres", "postgres-data", (), (), ("redis-data",), ("redis",))
REPLICATED: Final = Tier(
    POSTGRES_NODES[0],
    f"{POSTGRES_NODES[0]}-data",
    tuple(f"{node}-data" for node in POSTGRES_NODES[1:]),
    tuple(f"{node}-data" for node in ETCD_NODES),
    tuple(f"{node}-data" for node in (*REDIS_NODES, *SENTINELS)),
    (*POSTGRES_NODES[1:], *REDIS_NODES, *SENTINELS),
)


@dataclass(frozen=True)
class Restoration:
    """What is restored, and into which stack.

    Attributes:
        project: The stack that gets the database.
        settings: Its settings.
        source: The repository.
        chosen: The set.
        at: The time to restore; None for the end of the log, or the set itself.
        is_exact: Whether to restore the set itself.
        report: Prints a line of progress.
        is_new_stack: Whether it is a new stack beside the one of the backup, which gets no override file and none of
            the secrets by which alerts reach on-call engineers, or backups reach S3.
        with_files: Whether DAGs, plugins, logs and artifacts that are missing come from the set too.
    """

    project: Project
    settings: dict[str, str]
    source: Repository
    chosen: BackupSet
    at: datetime | None
    is_exact: bool
    report: Callable[[str], None]
    is_new_stack: bool = False
    with_files: bool = True

    @property
    def name(self) -> str:
        """The compose project."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    @property
    def tier(self) -> Tier:
        """The data tier."""
        return REPLICATED if "data-ha" in profiles(self.settings) else SINGLE

    def in_volume(self, volume: str, script: str) -> None:
        """Run a shell script in the root of a volume of Postgres or etcd, which is created if it does not exist."""
        restored_database.in_volume(self.source.image, compose.create_volume(self.name, volume), script)


def restore_database(restoration: Restoration) -> None:
    """Restore the database beside the current one; the stack runs on.

    Postgres first sends the end of its log.

    Raises:
        StackError: The restore failed; nothing was changed.
    """
    send_log(restoration)
    options = restored_database.target_options(restoration.chosen, restoration.at, is_exact=restoration.is_exact)
    last = restored_database.restore(
        restoration.source,
        compose.create_volume(restoration.name, restoration.tier.restored),
        restoration.project.compose_directory,
        options,
        restoration.report,
    )
    restoration.report(f"the database is restored; its last transaction is of {last or 'an unknown time'}")


def restore_files(restoration: Restoration) -> None:
    """Bring back the missing files of the set that no image is needed for."""
    project, snapshot = restoration.project, restoration.chosen.files
    project.state.mkdir(parents=True, exist_ok=True)
    if not snapshot:
        restoration.report("this backup has no files: secrets, settings and DAGs are those of this machine")
        return
    left_out = (*OPTIONAL_SECRETS, *backup_storage.SECRETS) if restoration.is_new_stack else ()
    if names := saved_files.restore_secrets(project, restoration.source, snapshot, left_out=left_out):
        restoration.report(f"secrets from the backup: {', '.join(names)}")
    takes_override = restoration.with_files and not restoration.is_new_stack
    if takes_override and (name := saved_files.restore_override(project, restoration.source, snapshot)):
        restoration.report(f"{name} from the backup")
    folders = {
        "dags": dags_folder(project, restoration.settings),
        "plugins": plugins_folder(project, restoration.settings),
    }
    for folder, target in folders.items() if restoration.with_files else ():
        if number := saved_files.restore_folder(restoration.source, snapshot, f"/set/{folder}", target):
            restoration.report(f"{folder} from the backup: {number} files that were missing in {project.shown(target)}")


def change(restoration: Restoration, images: Mapping[str, ResolvedImage], hold: Callable[[], None]) -> None:
    """Stop the stack, exchange the databases, and start the stack on the restored one, its DAGs held.

    Args:
        restoration: What was restored.
        images: The images of the stack.
        hold: Holds the DAGs, settles unfinished tasks and checks the database, with Postgres running and no scheduler.

    Raises:
        StackError: A step failed; the stack has the former database again.
    """
    project, settings, tier = restoration.project, restoration.settings, restoration.tier
    was_running = bool(compose.in_state(compose.instances(restoration.name), "running"))
    if restoration.chosen.files and restoration.with_files:
        restoration.report("restoring missing logs and artifacts")
        airflow = images["AIRFLOW_IMAGE"].reference
        source, snapshot = restoration.source, restoration.chosen.files
        saved_files.restore_volumes(source, snapshot, restoration.name, airflow, restoration.report)
    rotation_state.abandon(project)
    saved_files.renew_token_secrets(project)
    deployment.configure(project, settings, images)
    with exchanged(restoration, was_running=was_running):
        deployment.start(project, settings, [tier.primary])
        set_passwords(restoration)
        deployment.start(project, settings, [*tier.others, "migrate"])
        hold()
        start_archive(restoration)
    finish(restoration)
    deployment.start(project, settings)


def stop(restoration: Restoration) -> None:
    """Remove the containers of the stack; their volumes stay."""
    with compose.without_leftover_volumes(restoration.name):
        # The work of running tasks is lost in any case.
        seconds = compose.STOP_SECONDS if running_nodes(restoration) else LOST_SECONDS
        arguments = ("down", "--remove-orphans", f"--timeout={seconds}")
        compose.run(restoration.project, restoration.report, "--profile=*", *arguments)


@contextmanager
def exchanged(restoration: Restoration, *, was_running: bool) -> Iterator[None]:
    """Stop the stack and exchange the databases, and back if that or the block fails.

    Raises:
        StackError: It failed; the former database is back. Where there was none, the stack stays stopped.
    """
    had_database = bool(current_database(restoration))
    try:
        stop(restoration)
        exchange(restoration)
        yield
    except BaseException as error:  # no failure may leave the stack stopped on half a restore
        # At once: the way back may fail too.
        restoration.report(f"a step failed: {reason_of(error)}")
        restoration.report("the former database comes back" if had_database else "the stack stays stopped")
        stop(restoration)
        exchange_back(restoration)
        state = f"the stack {'has its former database again' if had_database else 'had no database, and is stopped'}"
        if had_database and was_running:
            try:
                deployment.start(restoration.project, restoration.settings)
            except StackError as failure:
                state += f", but did not start: {failure.what}"
        hint = error.hint if isinstance(error, StackError) else ""
        raise StackError(
            f"cannot start on the restored database: {reason_of(error)}",
            hint=f"{state}; {hint or 'fix the cause, then run this again'}",
            code=FAILURE,
        ) from error


def exchange(restoration: Restoration) -> None:
    """Let the restored database take the place of the former one, whose replicas and record are set aside."""
    tier = restoration.tier
    restoration.in_volume(tier.restored, restored_database.SWITCH)
    for volume in tier.copied:
        restoration.in_volume(volume, restored_database.SET_ASIDE)
    for volume in tier.records:
        restoration.in_volume(volume, restored_database.of_etcd(restored_database.SET_ASIDE))
    empty(restoration)


def exchange_back(restoration: Restoration) -> None:
    """Let the former database return, with its replicas and its record."""
    tier = restoration.tier
    for volume in (tier.restored, *tier.copied):
        restoration.in_volume(volume, restored_database.UNDO)
    for volume in tier.records:
        restoration.in_volume(volume, restored_database.of_etcd(restored_database.UNDO))
    empty(restoration)


def finish(restoration: Restoration) -> None:
    """Give up the way back: the stack stays on the restored database."""
    for volume in (restoration.tier.restored, *restoration.tier.copied):
        restoration.in_volume(volume, restored_database.FINISH)
    for volume in restoration.tier.records:
        restoration.in_volume(volume, restored_database.FORGET)


def empty(restoration: Restoration) -> None:
    """Delete the volumes whose content belongs to the other database."""
    existing = set(compose.volumes(restoration.name))
    if surplus := [name for volume in restoration.tier.emptied if (name := f"{restoration.name}_{volume}") in existing]:
        compose.docker("volume", "rm", *surplus)


def set_passwords(restoration: Restoration) -> None:
    """Give each role of Postgres the password in secrets/, which may have changed, and let Airflow log in again."""
    statements = [postgres_roles.QUIET]
    for role, secret in postgres_roles.PASSWORDS.items():
        password = postgres_roles.literal(secrets_store.read(restoration.project, secret))
        statements.append(f"ALTER ROLE {role} LOGIN PASSWORD {password};")
    if restoration.tier is REPLICATED:
        password = postgres_roles.literal(secrets_store.read(restoration.project, "postgres_replication_password"))
        statements.append(f"ALTER ROLE replicator PASSWORD {password};")
    query(restoration, "\n".join(statements))


def start_archive(restoration: Restoration) -> None:
    """Let the archive have the new timeline: from now on there is no way back."""
    query(restoration, "ALTER SYSTEM RESET archive_command; SELECT pg_reload_conf();")


def query(restoration: Restoration, statements: str) -> None:
    """Run statements as the superuser on the restored database.

    Raises:
        StackError: Postgres refused; the error does not show the statements, which may have passwords.
    """
    psql = ("psql", "--no-psqlrc", "--quiet", "--username=postgres", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
    result = data_tier.execute(writable(restoration), *psql, stdin=f"{statements}\n")
    if result.returncode != 0:
        reason = next(iter(result.stderr.splitlines()), "no output")
        raise StackError(f"cannot prepare the restored database: {reason}", code=FAILURE)


def writable(restoration: Restoration) -> str:
    """Return the container of the Postgres that accepts writes; a node that has just started becomes the primary soon.

    Raises:
        StackError: None does after WRITABLE_SECONDS.
    """

    def container() -> str | None:
        with contextlib.suppress(StackError):
            return data_tier.writable_postgres(compose.instances(restoration.name))
        return None

    return str(wait(container, WRITABLE_SECONDS, "Postgres accepts writes", restoration.report))


def send_log(restoration: Restoration) -> None:
    """Make a running Postgres send all its log to the repository, so that a restore reaches the present."""
    for container in running_nodes(restoration):
        if data_tier.ask(container.id, *PSQL, *END_OF_LOG) is not None:
            with contextlib.suppress(StackError):
                wait(
                    partial(has_sent_log, container.id),
                    SEND_SECONDS,
                    "the log is in the repository",
                    restoration.report,
                )


def running_nodes(restoration: Restoration) -> list[Instance]:
    """Return the running containers of Postgres."""
    nodes = (restoration.tier.primary, *(name for name in restoration.tier.others if name in POSTGRES_NODES))
    return compose.in_state(compose.instances(restoration.name), "running", nodes)


def has_sent_log(container: str) -> bool:
    """Return whether no finished segment of the log waits for the archive."""
    return data_tier.ask(container, *PSQL, f"--command={WAITING_LOG}") == "0"


def current_database(restoration: Restoration) -> str:
    """Return the identifier of the stack's database; empty if there is none, as on an empty machine."""
    volume = f"{restoration.name}_{restoration.tier.restored}"
    if volume not in compose.volumes(restoration.name):
        return ""
    return restored_database.system_id(restoration.source.image, volume)


def check_same_database(restoration: Restoration, current: str, saved: str) -> None:
    """Refuse a backup of another database than the one that it would replace.

    Args:
        restoration: What is restored.
        current: The identifier of the stack's database; empty if there is none.
        saved: The identifier of the database in the repository.

    Raises:
        StackError: The identifiers differ.
    """
    if current and current != saved:
        raise StackError(
            "cannot restore this backup: it is of another database than the one of this stack",
            where=f"{saved} in the repository, {current} in {restoration.name}_{restoration.tier.restored}",
            hint="restore it into a stack of its own with --to-new-stack NAME",
        )
