"""Backs up Postgres with pgBackRest by age, and serves the state of backups and of the archive to Prometheus.

    backup_database.py              the service
    backup_database.py now [full]   make a backup now and print its label; exit code 75 beside a replica

Under Patroni one service runs beside each node, and only the one beside the primary acts: after a failover the other
continues, and makes the backup that was interrupted. pgBackRest itself removes backups that are older than the kept
full ones, and refuses a second backup at the same time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backup_service import QUERY_SECONDS, RETRY_SECONDS, EngineError, Service, log, loop, write_labels

PASSWORD: Final = Path("/run/secrets/postgres_superuser_password")
REPLICA: Final = 75
MISSING_STANZA: Final = (1, 2)
"""pgBackRest's status codes of a repository without this database, or without a backup of it."""
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
        size: Bytes that the backup takes in the repository, with those that it refers to.
    """

    label: str
    kind: str
    stopped: int
    timeline: int
    is_damaged: bool
    size: int


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
    """The ages in seconds at which the next backup is due."""

    full: float
    incremental: float


def parse_repository(text: str) -> Repository:
    """Return the repository from `pgbackrest info --output=json`."""
    # A wrong passphrase puts bytes of the encrypted file into the message.
    (stanza,) = json.loads(text, strict=False)
    status = stanza["repo"][0]["status"]
    backups = [
        Backup(
            label=backup["label"],
            kind=backup["type"],
            stopped=backup["timestamp"]["stop"],
            timeline=int(backup["archive"]["start"][:8], 16),
            is_damaged=bool(backup.get("error")),
            size=backup["info"]["repository"].get("size", 0),
        )
        for backup in stanza["backup"]
    ]
    if status["code"] in MISSING_STANZA:
        problem = ""
    else:
        problem = "" if status["code"] == 0 else status["message"].splitlines()[0]
    system_id = str(stanza["db"][-1]["system-id"]) if stanza["db"] else ""
    return Repository(backups, problem, status["code"] == MISSING_STANZA[0], system_id)


def parse_database(text: str) -> Database:
    """Return the state of Postgres from the answer to STATE_QUERY."""
    system_id, recovery, timeline, lag = text.strip().split("|")
    return Database(system_id, recovery == "t", int(timeline), float(lag))


def checked(repository: Repository, database: Database) -> Repository:
    """Return the repository, with a problem if it belongs to another database, such as the one before `down --volumes`.

    Its backups stay, and can be restored into a new stack.
    """
    if repository.problem or repository.system_id in ("", database.system_id):
        return repository
    return replace(repository, problem="it has the backups of another database; set BACKUP_FOLDER to an empty folder")


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


def plan_of(environment: dict[str, str]) -> Plan:
    """Return the plan of the settings."""
    return Plan(int(environment["FULL_DAYS"]) * 86400.0, int(environment["INCREMENTAL_HOURS"]) * 3600.0)


def measured(repository: Repository) -> dict[str, float]:
    """Return the metrics of the repository."""
    stopped = {"any": [backup.stopped for backup in repository.backups]}
    stopped["full"] = [backup.stopped for backup in repository.backups if backup.kind == "full"]
    return {
        "airflow_ha_backup_repository_up": float(not repository.problem),
        "airflow_ha_backup_sets": float(len(repository.backups)),
        "airflow_ha_backup_damaged": float(any(backup.is_damaged for backup in repository.backups)),
        **{
            f'airflow_ha_backup_last_success_timestamp_seconds{{kind="{kind}"}}': float(times[-1])
            for kind, times in stopped.items()
            if times
        },
    }


class Backups:
    """The backups of one Postgres node."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.plan = plan_of(dict(os.environ))
        self.environment = {"PGPASSWORD": PASSWORD.read_text(encoding="utf-8").strip(), "PGCONNECT_TIMEOUT": "5"}
        self.started = time.time()
        self.retry_at = 0.0

    def database(self) -> Database:
        """Return the state of Postgres."""
        query = " ".join(STATE_QUERY.split())
        psql = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--command={query}")
        return parse_database(self.service.run(*psql, environment=self.environment, seconds=QUERY_SECONDS).stdout)

    def repository(self, database: Database) -> Repository:
        """Return the repository, which may have a problem."""
        try:
            answer = self.service.run("pgbackrest", "info", "--output=json", seconds=QUERY_SECONDS).stdout
        except EngineError:
            self.service.metrics["airflow_ha_backup_repository_up"] = 0.0
            raise
        return checked(parse_repository(answer), database)

    def make(self, kind: str, repository: Repository, database: Database) -> str:
        """Make a backup and return its label."""
        if repository.is_new:
            self.service.run("pgbackrest", "stanza-create", environment=self.environment)
        started = time.monotonic()
        self.service.run("pgbackrest", "backup", f"--type={kind}", environment=self.environment)
        labels = [backup.label for backup in self.repository(database).backups]
        write_labels(labels)
        log(f"{labels[-1]}: made in {time.monotonic() - started:.1f} s")
        return labels[-1]

    def measure(self, repository: Repository) -> None:
        """Update the metrics of the repository.

        The time at which a backup is due goes on ageing while no engine answers; an age would stand still.
        """
        due_time = due_at(repository.backups, self.plan, self.started)
        self.service.metrics |= measured(repository) | {"airflow_ha_backup_due_timestamp_seconds": due_time}

    def tick(self) -> None:
        """Update the metrics, and make a backup if one is due.

        `airflow_ha_backup_engine_up` is 0 from a failure until everything that is due has succeeded.
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
            return
        self.service.metrics |= {
            "airflow_ha_backup_active": 1.0,
            "airflow_ha_backup_archive_lag_seconds": database.archive_lag,
        }
        repository = self.repository(database)
        self.measure(repository)
        if repository.problem:
            raise EngineError(f"cannot use the repository: {repository.problem}")
        if kind := due(repository.backups, database.timeline, time.time(), self.plan):
            if time.monotonic() < self.retry_at:
                return
            try:
                self.make(kind, repository, database)
            except EngineError:
                self.retry_at = time.monotonic() + RETRY_SECONDS
                raise
            self.measure(self.repository(database))
        self.service.metrics["airflow_ha_backup_engine_up"] = 1.0


def make_now(kind: str) -> int:
    """Make a backup, print its label, and return the exit code."""
    backups = Backups(Service())
    try:
        database = backups.database()
        if database.is_replica:
            return REPLICA
        repository = backups.repository(database)
        if repository.problem:
            raise EngineError(f"cannot use the repository: {repository.problem}")
        print(backups.make(kind, repository, database))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["now"]:
        sys.exit(make_now("full" if "full" in sys.argv else "incr"))
    service = Service()
    loop(service, Backups(service).tick)
