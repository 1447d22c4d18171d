"""Backs up Postgres with pgBackRest by age, verifies backups, and serves their state and the archive's to Prometheus.

    backup_database.py                  the service
    backup_database.py now [full]       make a backup now and print its label; exit code 75 beside a replica
    backup_database.py verified LABEL   record the problems of a backup from standard input; exit code 75 as above

Under Patroni one service runs beside each node, and only the one beside the primary acts: after a failover the other
continues, and makes the backup that was interrupted. pgBackRest itself removes backups that are older than the kept
full ones, and refuses a second backup at the same time. What a backup has, and its verification, are annotations of it
in the repository, so they go with it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import restore_check
from backup_service import QUERY_SECONDS, RETRY_SECONDS, EngineError, Service, log, loop, write_labels

PASSWORD: Final = Path("/run/secrets/postgres_superuser_password")
REPLICA: Final = 75
MISSING_STANZA: Final = (1, 2)
"""pgBackRest's status codes of a repository without this database, or without a backup of it."""
LAST_SUCCESS: Final = "airflow_ha_backup_last_success_timestamp_seconds"
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


def parse_repository(text: str) -> Repository:
    """Return the repository from `pgbackrest info --output=json`."""
    # A wrong passphrase puts bytes of the encrypted file into the message.
    (stanza,) = json.loads(text, strict=False)
    status = stanza["repo"][0]["status"]
    backups = [parse_backup(backup) for backup in stanza["backup"]]
    if status["code"] in MISSING_STANZA:
        problem = ""
    else:
        problem = "" if status["code"] == 0 else status["message"].splitlines()[0]
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


def to_verify(backups: list[Backup], now: float, plan: Plan) -> Backup | None:
    """Return the newest backup if a verification is due, otherwise None.

    None either for a backup of before Airflow's first start: a restore of it would prove little.
    """
    if plan.verification is None or not backups or backups[-1].figures.get("rows") == {}:
        return None
    return backups[-1] if now - max(backup.verified for backup in backups) >= plan.verification else None


def verification_metrics(backups: list[Backup], plan: Plan) -> dict[str, float]:
    """Return the metrics of the verifications; none while they are off.

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
    return metrics | ({"airflow_ha_backup_last_verified_restore_timestamp_seconds": max(good)} if good else {})


def plan_of(environment: dict[str, str]) -> Plan:
    """Return the plan of the settings."""
    days = int(environment["VERIFY_DAYS"])
    return Plan(
        full=int(environment["FULL_DAYS"]) * 86400.0,
        incremental=int(environment["INCREMENTAL_HOURS"]) * 3600.0,
        verification=days * 86400.0 if days else None,
    )


def measured(repository: Repository) -> dict[str, float]:
    """Return the metrics of the repository."""
    stopped = {"any": [backup.stopped for backup in repository.backups]}
    stopped["full"] = [backup.stopped for backup in repository.backups if backup.kind == "full"]
    return {
        "airflow_ha_backup_repository_up": float(not repository.problem),
        "airflow_ha_backup_sets": float(len(repository.backups)),
        "airflow_ha_backup_stored_bytes": float(sum(backup.stored for backup in repository.backups)),
        "airflow_ha_backup_damaged": float(any(backup.is_damaged for backup in repository.backups)),
        **{f'{LAST_SUCCESS}{{kind="{kind}"}}': float(times[-1]) for kind, times in stopped.items() if times},
    }


class Backups:
    """The backups of one Postgres node."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.plan = plan_of(dict(os.environ))
        self.environment = {"PGPASSWORD": PASSWORD.read_text(encoding="utf-8").strip(), "PGCONNECT_TIMEOUT": "5"}
        self.started = time.time()
        self.retry_at = 0.0
        self.verify_at = 0.0
        self.verification: threading.Thread | None = None

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
        before = self.figures()
        self.service.run("pgbackrest", "backup", f"--type={kind}", environment=self.environment)
        labels = [backup.label for backup in self.repository(database).backups]
        write_labels(labels)
        self.record_figures(labels[-1], before)
        log(f"{labels[-1]}: made in {time.monotonic() - started:.1f} s")
        return labels[-1]

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

    def record_figures(self, label: str, before: dict[str, Any]) -> None:
        """Record the figures of a backup, unless they are unknown; without them its rows are not compared."""
        if not (after := self.figures() if before else {}):
            return
        try:
            self.annotate(label, FIGURES, restore_check.at_least(before, after))
        except EngineError as error:
            log(f"error: {error}")

    def annotate(self, label: str, name: str, value: dict[str, Any]) -> None:
        """Write an annotation of a backup, in place of its former one; wait for a backup that runs."""
        command = ("pgbackrest", "annotate", f"--set={label}", f"--annotation={name}={json.dumps(value)}")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self.service.run(*command)
                return
            except EngineError as error:
                if LOCKED not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_POLL_SECONDS)

    def record(self, label: str, problems: list[str]) -> None:
        """Record a verification."""
        self.annotate(label, VERIFICATION, {"at": time.time(), "problems": problems[: restore_check.MOST_PROBLEMS]})
        log(f"{label}: {'; '.join(problems) or 'verified, a restore has no problem'}")

    def verify(self, backup: Backup) -> None:
        """Verify a backup and record that, unless this node is no longer the primary."""
        self.verify_at = time.monotonic() + VERIFY_RETRY_SECONDS
        log(f"{backup.label}: verification starts")
        try:
            problems = restore_check.check(self.service, backup.label, backup.size, backup.figures)
            if not self.database().is_replica:
                self.record(backup.label, problems)
        except EngineError as error:
            log(f"error: {error}")

    def start_verification(self, backups: list[Backup]) -> None:
        """Start a verification in the background if one is due: backups and metrics must not wait for it."""
        is_running = self.verification is not None and self.verification.is_alive()
        if is_running or time.monotonic() < self.verify_at:
            return
        if backup := to_verify(backups, time.time(), self.plan):
            self.verification = threading.Thread(target=self.verify, args=(backup,), daemon=True)
            self.verification.start()

    def measure(self, repository: Repository) -> None:
        """Update the metrics of the repository.

        The time at which a backup is due goes on ageing while no engine answers; an age would stand still.
        """
        due_time = due_at(repository.backups, self.plan, self.started)
        self.service.metrics |= measured(repository) | {"airflow_ha_backup_due_timestamp_seconds": due_time}
        self.service.metrics |= verification_metrics(repository.backups, self.plan)

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
        else:
            self.start_verification(repository.backups)
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


def record_now(label: str) -> int:
    """Record the problems in standard input as a verification, and return the exit code."""
    backups = Backups(Service())
    try:
        if backups.database().is_replica:
            return REPLICA
        backups.record(label, json.load(sys.stdin))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["now"]:
        sys.exit(make_now("full" if "full" in sys.argv else "incr"))
    if sys.argv[1:2] == ["verified"]:
        sys.exit(record_now(sys.argv[2]))
    service = Service()
    restore_check.remove()  # what a killed service left
    loop(service, Backups(service).tick)
