"""Backs up Postgres with pgBackRest by age, verifies backups, and serves their state and the archive's to Prometheus.

    backup_database.py                          the service
    backup_database.py now [full] [new]         make a backup in each storage now and print `STORAGE LABEL` for each;
                                                exit code 75 beside a replica. `new`: also where former backups are gone
    backup_database.py verified STORAGE LABEL   record the problems of a backup from standard input; exit code 75 as
                                                above

Under Patroni one service runs beside each node, and only the one beside the primary acts: after a failover the other
continues, and makes the backup that was interrupted. Each storage has a repository with backups of its own: one that is
down does not keep the others from theirs. pgBackRest itself removes backups that are older than the kept
full ones, and refuses a second backup at the same time. What a backup has, and its verification, are annotations of it
in the repository, so they go with it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import restore_check
from backup_service import (
    BACKUP_SECONDS,
    QUERY_SECONDS,
    RETRY_SECONDS,
    STORAGES,
    EngineError,
    Service,
    log,
    loop,
    series,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    Step = Callable[["Storage", "Database", Container[str]], bool]

PASSWORD: Final = Path("/run/secrets/postgres_superuser_password")
REPLICA: Final = 75
MISSING_STANZA: Final = (1, 2)
"""pgBackRest's status codes of a repository without this database, or without a backup of it."""
CREATE_RECORD: Final = """
SET client_min_messages = error;
CREATE TABLE IF NOT EXISTS backup_places (place text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
"""
"""The record of the places that have had backups of this database, in its own database `postgres`."""
READ_ONLY: Final = "its disk is read-only"
FULL: Final = "its disk is full"
SEGMENT: Final = 16 << 20
"""Bytes of a segment of Postgres' log: a disk without room for one is full."""
GONE: Final = "its backups are gone: mount its disk again, or run ./ops/stack backup now --new"
FIGURES: Final = "airflow-ha-figures"
VERIFICATION: Final = "airflow-ha-verification"
ANNOTATIONS: Final = (FIGURES, VERIFICATION)
"""The names of annotations of a backup; their values are JSON."""
LOCKED: Final = "[050]"
"""pgBackRest's error while another of its processes works."""
LOCK_SECONDS: Final = 600.0
LOCK_POLL_SECONDS: Final = 5.0
FIGURES_SECONDS: Final = 600.0
"""The time limit of counting rows."""
VERIFY_RETRY_SECONDS: Final = 3600.0
"""The wait after a verification that could not begin or be recorded, such as for disk space."""
STATE_QUERY: Final = """
SELECT (SELECT system_identifier FROM pg_control_system()), pg_is_in_recovery(),
       (SELECT timeline_id FROM pg_control_checkpoint()),
       (SELECT coalesce(extract(epoch FROM now() - min(modification)), 0)
          FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')
"""


@dataclass(frozen=True)
class Backup:
    """A backup in the repository.

    Attributes:
        label: pgBackRest's label, which is also the identity of the set.
        kind: full, diff or incr.
        stopped: When it was complete, seconds since the epoch.
        timeline: The timeline of Postgres that it was made on.
        is_damaged: Whether a page failed its checksum.
        size: Bytes of the database.
        stored: Bytes that the backup adds to the repository.
        figures: What it has, of figures.sql; empty if that is unknown.
        verified: When a restore of it was last checked, seconds since the epoch; 0 if it never was.
        problems: What that found.
    """

    label: str
    kind: str
    stopped: int
    timeline: int
    is_damaged: bool
    size: int
    stored: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    verified: float = 0.0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repository:
    """The repository: its backups, the oldest first, and its problem, empty if it is usable.

    Attributes:
        system_id: The identifier of the database that it belongs to; empty if it is new.
    """

    backups: list[Backup]
    problem: str
    is_new: bool = False
    system_id: str = ""


@dataclass(frozen=True)
class Database:
    """The state of Postgres.

    Attributes:
        system_id: Its identifier, which stays for the life of a database.
        is_replica: Whether it is a replica.
        timeline: Its timeline.
        archive_lag: For how many seconds the oldest finished segment of the log has waited for the archive.
    """

    system_id: str
    is_replica: bool
    timeline: int
    archive_lag: float


@dataclass(frozen=True)
class Plan:
    """The ages in seconds at which the next backup, and the next verification, is due; None for no verification."""

    full: float
    incremental: float
    verification: float | None = None


@dataclass(frozen=True)
class Storage:
    """A place of backups.

    Attributes:
        name: local or s3.
        place: The volume, the folder of the host, or the path in the bucket.
        configuration: pgBackRest's, without the repositories of other storages.
        folder: Where the local storage is mounted; None for others.
    """

    name: str
    place: str
    configuration: str
    folder: Path | None = None


def parse_storages(text: str, local: str) -> list[Storage]:
    """Return the storages from pgBackRest's configuration.

    Args:
        text: The configuration.
        local: The volume or the folder of the local storage.
    """
    found = []
    for name, number in STORAGES.items():
        options = dict(re.findall(rf"^repo{number}-(\S+?)=(.*)$", text, re.MULTILINE))
        if options:
            in_bucket = (options.get("s3-endpoint", ""), options.get("s3-bucket", ""), options["path"].strip("/"))
            place = "/".join(in_bucket) if name == "s3" else local
            lines = (line for line in text.splitlines() if not re.match(rf"repo(?!{number}-)", line))
            folder = Path(options["path"]).parent if name == "local" else None
            found.append(Storage(name, place, "\n".join(lines) + "\n", folder))
    return found


def first_line(message: str) -> str:
    """Return the first line of a message, with the code of the error if an S3 server sent one."""
    code = re.search(r"<Code>(\w+)</Code>", message)
    return message.splitlines()[0] + (f" {code[1]}" if code else "")


def parse_repository(text: str) -> Repository:
    """Return the repository from `pgbackrest info --output=json`."""
    # A wrong passphrase puts bytes of the encrypted file into the message.
    (stanza,) = json.loads(text, strict=False)
    status = stanza["repo"][0]["status"]
    backups = [parse_backup(backup) for backup in stanza["backup"]]
    problem = "" if status["code"] in (0, *MISSING_STANZA) else first_line(status["message"])
    system_id = str(stanza["db"][-1]["system-id"]) if stanza["db"] else ""
    return Repository(backups, problem, status["code"] == MISSING_STANZA[0], system_id)


def parse_backup(backup: dict[str, Any]) -> Backup:
    """Return a backup from pgBackRest's entry."""
    notes = {name: json.loads(value) for name, value in backup.get("annotation", {}).items() if name in ANNOTATIONS}
    verification = notes.get(VERIFICATION, {})
    return Backup(
        label=backup["label"],
        kind=backup["type"],
        stopped=backup["timestamp"]["stop"],
        timeline=int(backup["archive"]["start"][:8], 16),
        is_damaged=bool(backup.get("error")),
        size=backup["info"].get("size", 0),
        stored=backup["info"]["repository"].get("delta", 0),
        figures=notes.get(FIGURES, {}),
        verified=verification.get("at", 0.0),
        problems=tuple(verification.get("problems", ())),
    )


def parse_database(text: str) -> Database:
    """Return the state of Postgres from the answer to STATE_QUERY."""
    system_id, recovery, timeline, lag = text.strip().split("|")
    return Database(system_id, recovery == "t", int(timeline), float(lag))


def checked(repository: Repository, database: Database, *, had_backups: bool) -> Repository:
    """Return the repository, with a problem if its backups are gone, or those of another database.

    The latter, such as of the one before `down --volumes`, stay, and can be restored into a new stack.

    Args:
        repository: The repository.
        database: The database.
        had_backups: Whether the database had backups there.
    """
    if repository.problem:
        return repository
    if repository.is_new and had_backups:
        return replace(repository, problem=GONE)
    if repository.system_id in ("", database.system_id):
        return repository
    return replace(
        repository,
        problem="it has the backups of another database; set BACKUP_FOLDER or BACKUP_S3_PREFIX to an empty one",
    )


def disk_problem(folder: Path) -> str:
    """Return why nothing can be written to a disk; empty if it can."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return READ_ONLY
    is_full = disk.f_bavail * disk.f_frsize < SEGMENT or (disk.f_files and not disk.f_favail)
    return FULL if is_full else ""


def due(backups: list[Backup], timeline: int, now: float, plan: Plan) -> str | None:
    """Return the kind of backup that is due, None if none is.

    A new timeline (a failover, a restore) gets a backup at once: a restore then needs no log of the old one.
    """
    full = [backup.stopped for backup in backups if backup.kind == "full"]
    if not full or now - full[-1] >= plan.full:
        return "full"
    newest = backups[-1]
    if newest.timeline != timeline or now - newest.stopped >= plan.incremental:
        return "incr"
    return None


def due_at(backups: list[Backup], plan: Plan, started: float) -> float:
    """Return when the next backup is due, seconds since the epoch; without any, the start of the service."""
    full = [backup.stopped for backup in backups if backup.kind == "full"]
    return min(full[-1] + plan.full, backups[-1].stopped + plan.incremental) if full else started


def to_verify(backups: list[Backup], now: float, plan: Plan) -> Backup | None:
    """Return the newest backup if a verification is due, otherwise None.

    None either for a backup of before Airflow's first start: a restore of it would prove little.
    """
    if plan.verification is None or not backups or backups[-1].figures.get("rows") == {}:
        return None
    return backups[-1] if now - max(backup.verified for backup in backups) >= plan.verification else None


def verification_metrics(storage: str, backups: list[Backup], plan: Plan) -> dict[str, float]:
    """Return the metrics of the verifications of a storage; none while they are off.

    Without a verified restore its time is that of the oldest backup. An older backup that is verified later does not
    end the failure of a newer one.
    """
    if plan.verification is None or not backups:
        return {}
    checked_backups = [backup for backup in backups if backup.verified]
    good = [backup.verified for backup in checked_backups if not backup.problems]
    metrics = {
        "airflow_ha_backup_verification_failed": float(bool(checked_backups and checked_backups[-1].problems)),
        "airflow_ha_backup_verification_interval_seconds": plan.verification,
        "airflow_ha_backup_unverified_since_timestamp_seconds": max(good, default=backups[0].stopped),
    }
    if good:
        metrics["airflow_ha_backup_last_verified_restore_timestamp_seconds"] = max(good)
    return {series(name, repository=storage): value for name, value in metrics.items()}


def plan_of(environment: dict[str, str]) -> Plan:
    """Return the plan of the settings."""
    days = int(environment["VERIFY_DAYS"])
    return Plan(
        full=int(environment["FULL_DAYS"]) * 86400.0,
        incremental=int(environment["INCREMENTAL_HOURS"]) * 3600.0,
        verification=days * 86400.0 if days else None,
    )


def measured(storage: str, repository: Repository) -> dict[str, float]:
    """Return the metrics of a repository."""
    stopped = {"any": [backup.stopped for backup in repository.backups]}
    stopped["full"] = [backup.stopped for backup in repository.backups if backup.kind == "full"]
    metrics = {
        "airflow_ha_backup_repository_up": float(not repository.problem),
        "airflow_ha_backup_sets": float(len(repository.backups)),
        "airflow_ha_backup_stored_bytes": float(sum(backup.stored for backup in repository.backups)),
        "airflow_ha_backup_damaged": float(any(backup.is_damaged for backup in repository.backups)),
    }
    return {series(name, repository=storage): value for name, value in metrics.items()} | {
        series("airflow_ha_backup_last_success_timestamp_seconds", kind=kind, repository=storage): float(times[-1])
        for kind, times in stopped.items()
        if times
    }


class Backups:
    """The backups of one Postgres node."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.plan = plan_of(dict(os.environ))
        self.environment = {"PGPASSWORD": PASSWORD.read_text(encoding="utf-8").strip(), "PGCONNECT_TIMEOUT": "5"}
        self.started = time.time()
        configuration = Path(os.environ["PGBACKREST_CONFIG"]).read_text(encoding="utf-8")
        self.storages = parse_storages(configuration, os.environ["LOCAL_STORAGE"])
        self.retry_at = dict.fromkeys((storage.name for storage in self.storages), 0.0)
        self.verify_at = dict(self.retry_at)
        self.verification: threading.Thread | None = None
        self.labels: dict[str, list[str]] = {}
        folder = Path(tempfile.mkdtemp())
        self.files = {storage.name: folder / f"{storage.name}.conf" for storage in self.storages}
        for storage in self.storages:
            self.files[storage.name].write_text(storage.configuration, encoding="utf-8")

    def sql(self, statements: str) -> str:
        """Return the answer of Postgres."""
        psql = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", f"--command={statements}")
        return self.service.run(*psql, environment=self.environment, seconds=QUERY_SECONDS).stdout

    def database(self) -> Database:
        """Return the state of Postgres."""
        return parse_database(self.sql(" ".join(STATE_QUERY.split())))

    def engine(self, storage: Storage, *arguments: str, seconds: float = BACKUP_SECONDS) -> str:
        """Return the output of pgBackRest on one storage."""
        environment = self.environment | {"PGBACKREST_CONFIG": str(self.files[storage.name])}
        return self.service.run("pgbackrest", *arguments, environment=environment, seconds=seconds).stdout

    def had_backups(self) -> set[str]:
        """Return the places that have had backups of this database."""
        self.sql(CREATE_RECORD)
        return set(self.sql("SELECT place FROM backup_places").split("\n")) - {""}

    def repository(self, storage: Storage, database: Database, places: Container[str]) -> Repository:
        """Return the repository of a storage, which may have a problem, and update its metrics.

        Args:
            storage: The storage.
            database: The database.
            places: Of had_backups().
        """
        try:
            text = self.engine(storage, "info", "--io-timeout=5", "--output=json", seconds=QUERY_SECONDS)
        except EngineError:
            self.service.metrics[series("airflow_ha_backup_repository_up", repository=storage.name)] = 0.0
            raise
        repository = checked(parse_repository(text), database, had_backups=storage.place in places)
        if storage.folder and not repository.problem:
            repository = replace(repository, problem=self.disk_problem(storage, storage.folder))
        self.measure(storage.name, repository)
        if repository.problem:
            raise EngineError(f"cannot use the repository: {repository.problem}")
        self.labels[storage.name] = [backup.label for backup in repository.backups]
        try:
            write_labels(self.labels)
        except EngineError as error:  # it is on the local storage, which does not keep others from their backups
            log(f"error: {storage.name}: {error}")
        if repository.backups and storage.place not in places:
            place = storage.place.replace("'", "''")
            self.sql(f"INSERT INTO backup_places (place) VALUES ('{place}') ON CONFLICT DO NOTHING")  # noqa: S608
        return repository

    def disk_problem(self, storage: Storage, folder: Path) -> str:
        """Return why nothing can be written to the disk of a storage, once no backup is on it that is not kept.

        pgBackRest itself removes those after the next backup, for which a full disk has no room.
        """
        if (problem := disk_problem(folder)) != FULL:
            return problem
        try:
            self.engine(storage, "expire")
        except EngineError as error:
            log(f"error: {storage.name}: {error}")
        return disk_problem(folder)

    def make(self, storage: Storage, kind: str, database: Database) -> str:
        """Make a backup and return its label."""
        before = self.figures()
        self.engine(storage, "backup", f"--type={kind}")
        label = self.repository(storage, database, self.had_backups()).backups[-1].label
        self.record_figures(storage, label, before)
        return label

    def figures(self) -> dict[str, Any]:
        """Return the figures of Airflow's database that a restore must have; empty if they cannot be read.

        A damaged table must not prevent a backup.
        """
        query = (*restore_check.PSQL, "--dbname=airflow", f"--file={restore_check.QUERIES / 'figures.sql'}")
        try:
            answer = self.service.run(*query, environment=self.environment, seconds=FIGURES_SECONDS).stdout
        except EngineError as error:
            log(f"error: cannot count rows: {error}")
            return {}
        figures: dict[str, Any] = json.loads(answer)
        return figures

    def record_figures(self, storage: Storage, label: str, before: dict[str, Any]) -> None:
        """Record the figures of a backup, unless they are unknown; without them its rows are not compared."""
        if not (after := self.figures() if before else {}):
            return
        try:
            self.annotate(storage, label, FIGURES, restore_check.at_least(before, after))
        except EngineError as error:
            log(f"error: {error}")

    def annotate(self, storage: Storage, label: str, name: str, value: dict[str, Any]) -> None:
        """Write an annotation of a backup, in place of its former one; wait for a backup that runs."""
        command = ("annotate", f"--set={label}", f"--annotation={name}={json.dumps(value)}")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self.engine(storage, *command)
                return
            except EngineError as error:
                if LOCKED not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_POLL_SECONDS)

    def record(self, storage: Storage, label: str, problems: list[str]) -> None:
        """Record a verification."""
        note = {"at": time.time(), "problems": problems[: restore_check.MOST_PROBLEMS]}
        self.annotate(storage, label, VERIFICATION, note)
        log(f"{storage.name}: {label}: {'; '.join(problems) or 'verified, a restore has no problem'}")

    def verify(self, storage: Storage, backup: Backup) -> None:
        """Verify a backup and record that, unless this node is no longer the primary."""
        self.verify_at[storage.name] = time.monotonic() + VERIFY_RETRY_SECONDS
        log(f"{storage.name}: {backup.label}: verification starts")
        engine = {"PGBACKREST_CONFIG": str(self.files[storage.name])}
        try:
            problems = restore_check.check(self.service, backup.label, backup.size, backup.figures, engine)
            if not self.database().is_replica:
                self.record(storage, backup.label, problems)
        except EngineError as error:
            log(f"error: {storage.name}: {error}")

    def start_verification(self, storage: Storage, backups: list[Backup]) -> None:
        """Start a verification in the background if one is due: backups and metrics must not wait for it.

        One at a time: each storage has its turn.
        """
        is_running = self.verification is not None and self.verification.is_alive()
        if is_running or time.monotonic() < self.verify_at[storage.name]:
            return
        if backup := to_verify(backups, time.time(), self.plan):
            self.verification = threading.Thread(target=self.verify, args=(storage, backup), daemon=True)
            self.verification.start()

    def measure(self, storage: str, repository: Repository) -> None:
        """Update the metrics of a repository; while it cannot be used, only that.

        The time at which a backup is due stays right meanwhile; an age would not.
        """
        if repository.problem:
            self.service.metrics[series("airflow_ha_backup_repository_up", repository=storage)] = 0.0
            return
        due_time = due_at(repository.backups, self.plan, self.started)
        self.service.metrics |= measured(storage, repository)
        self.service.metrics[series("airflow_ha_backup_due_timestamp_seconds", repository=storage)] = due_time
        self.service.metrics |= verification_metrics(storage, repository.backups, self.plan)

    def tick(self) -> None:
        """Update the metrics, and make the backups that are due.

        `airflow_ha_backup_engine_up` is 0 from a failure until everything that is due has succeeded in every storage.
        """
        try:
            self.act()
        except EngineError:
            self.service.metrics["airflow_ha_backup_engine_up"] = 0.0
            raise

    def act(self) -> None:
        """Do the work of `tick`."""
        try:
            database = self.database()
        except EngineError:
            for name in ("airflow_ha_backup_active", "airflow_ha_backup_archive_lag_seconds"):
                self.service.metrics.pop(name, None)  # unknown now
            raise
        if database.is_replica:
            # The series of a former primary end: the other service has them now.
            self.service.metrics = {"airflow_ha_backup_active": 0.0}
            self.service.problems = {}
            return
        self.service.metrics |= {
            "airflow_ha_backup_active": 1.0,
            "airflow_ha_backup_archive_lag_seconds": database.archive_lag,
        }
        places = self.had_backups()
        usable = [storage for storage in self.storages if self.succeeds(storage, self.prepare, database, places)]
        done = [storage for storage in usable if self.succeeds(storage, self.visit, database, places)]
        for storage in done:
            self.service.problems.pop(storage.name, None)
        self.service.metrics["airflow_ha_backup_engine_up"] = float(done == self.storages)

    def succeeds(self, storage: Storage, step: Step, database: Database, places: Container[str]) -> bool:
        """Take a step for a storage, and return whether it is done: one that fails does not keep others from it."""
        try:
            return step(storage, database, places)
        except EngineError as error:
            self.service.metrics["airflow_ha_backup_engine_up"] = 0.0
            self.service.problems[storage.name] = str(error)
            log(f"error: {storage.name}: {error}")
            return False

    def prepare(self, storage: Storage, database: Database, places: Container[str]) -> bool:
        """Update the metrics of a storage, and start a new repository: until then it does not take the log."""
        if self.repository(storage, database, places).is_new:
            self.engine(storage, "stanza-create")
        return True

    def visit(self, storage: Storage, database: Database, places: Container[str]) -> bool:
        """Make a backup in a storage if one is due there, and return whether none is due any more."""
        repository = self.repository(storage, database, places)
        kind = due(repository.backups, database.timeline, time.time(), self.plan)
        if kind is None:
            self.start_verification(storage, repository.backups)
            return True
        if time.monotonic() < self.retry_at[storage.name]:
            return False
        started = time.monotonic()
        try:
            label = self.make(storage, kind, database)
        except EngineError:
            self.retry_at[storage.name] = time.monotonic() + RETRY_SECONDS
            raise
        log(f"{storage.name}: {label}: made in {time.monotonic() - started:.1f} s")
        return True


def make_now(kind: str, *, is_new: bool) -> int:
    """Make a backup in each storage, print their labels, and return the exit code.

    Args:
        kind: full or incr.
        is_new: Whether to start a new repository where former backups are gone.
    """
    backups = Backups(Service())
    code = 0
    try:
        database = backups.database()
        if database.is_replica:
            return REPLICA
        places = () if is_new else backups.had_backups()
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    for storage in backups.storages:
        try:
            backups.prepare(storage, database, places)
            label = backups.make(storage, kind, database)
            print(f"{storage.name} {label}", flush=True)
        except EngineError as error:
            print(f"{storage.name}: {error}", file=sys.stderr)
            code = 1
    return code


def record_now(name: str, label: str) -> int:
    """Record the problems in standard input as a verification of a storage's backup, and return the exit code."""
    backups = Backups(Service())
    storage = next(each for each in backups.storages if each.name == name)
    try:
        if backups.database().is_replica:
            return REPLICA
        backups.record(storage, label, json.load(sys.stdin))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["now"]:
        sys.exit(make_now("full" if "full" in sys.argv else "incr", is_new="new" in sys.argv))
    if sys.argv[1:2] == ["verified"]:
        sys.exit(record_now(*sys.argv[2:4]))
    service = Service()
    restore_check.remove()  # what a killed service left
    loop(service, Backups(service).tick)
