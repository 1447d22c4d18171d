"""Restores a backup into the volume `backup-scratch`, starts Postgres on it without network and archive, and checks it.

The same SQL checks a restored database in `./ops/stack backup verify` (src/airflow_ha/restored/verification.py). What
is encrypted, and Airflow itself, only that command can check: this container has no Fernet key.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backup_service import BACKUP_SECONDS, QUERY_SECONDS, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from backup_service import Service

FOLDER: Final = Path("/var/lib/postgresql", os.environ.get("PGHOST", ""))
"""In the volume `backup-scratch`, a folder for each node of Postgres."""
RESTORED: Final = FOLDER / "restored"
QUERIES: Final = Path("/usr/local/lib/backup-queries")
"""The folder src/airflow_ha/restored/queries."""
ROOM: Final = 1.25
MARGIN: Final = 1 << 30
"""Disk space that a restore needs, in sizes of the database, and bytes that it leaves for the stack's Postgres."""
SMALL: Final = "-c config_file=/dev/null -c shared_buffers=16MB -c maintenance_work_mem=16MB -c max_connections=10"
"""Postgres' own settings where these are not set: beside a backup, within the memory of the container."""
SERVER: Final = f"{SMALL} -c archive_mode=off -c listen_addresses='' -c unix_socket_directories=/tmp"
PG_CTL: Final = ("pg_ctl", f"--pgdata={RESTORED}", "--wait")
PSQL: Final = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1")
SOCKET: Final = {"PGHOST": "/tmp", "PGUSER": "postgres"}  # noqa: S108 (a tmpfs of the container)
DATABASES: Final = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
MOST_PROBLEMS: Final = 5


def check(service: Service, label: str, size: int, figures: Mapping[str, Any], engine: Mapping[str, str]) -> list[str]:
    """Return the problems of a backup: that it cannot be restored, or what is wrong with the restored database.

    Args:
        service: Runs the engines.
        label: The backup.
        size: Bytes of the database.
        figures: What the backup recorded.
        engine: The environment of pgBackRest, which names the configuration of the backup's storage.

    Raises:
        EngineError: The disk has too little room, so nothing was restored.
    """
    FOLDER.mkdir(exist_ok=True)
    if (free := shutil.disk_usage(FOLDER).free) < (needed := int(size * ROOM) + MARGIN):
        space = f"{needed >> 20} MiB of disk space are required, {free >> 20} MiB are free"
        raise EngineError(f"cannot verify {label}: {space}")
    options = {**engine, "RESTORE_FOLDER": str(FOLDER), "RESTORE_SERVER_OPTIONS": SMALL}
    arguments = (f"--set={label}", "--type=immediate", "--target-action=promote")
    found: list[str] = []
    try:
        service.run("bash", "/usr/local/lib/backup/restore.sh", *arguments, environment=options)
        with server(service):
            for problem in problems(lambda *query: ask(service, *query), figures):
                found.append(problem)  # noqa: PERF402 (an error keeps what was found before it)
    except EngineError as error:
        found.append(f"cannot restore or read it: {error}")
    finally:
        remove()
    return found


@contextmanager
def server(service: Service) -> Iterator[None]:
    """Run Postgres on the restored database during the block."""
    start = (*PG_CTL, "--log=/tmp/restored.log", f"--options={SERVER}", f"--timeout={BACKUP_SECONDS:.0f}", "start")
    # Its output would stay open as long as the server.
    service.run("sh", "-c", 'exec "$@" >/tmp/pg_ctl.log 2>&1', "sh", *start)
    try:
        yield
    finally:
        service.run(*PG_CTL, "--mode=immediate", "stop", allowed=(0, 1), seconds=QUERY_SECONDS)


def problems(ask: Callable[..., str], figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the restored database.

    Args:
        ask: Returns the answer to a query: the database, and options of psql.
        figures: What the backup recorded.
    """
    for database in ask("postgres", f"--command={DATABASES}").split("\n"):
        damage = ask(database, f"--file={QUERIES / 'damage.sql'}").splitlines()
        yield from damage[:MOST_PROBLEMS]
    yield from lost(figures, json.loads(ask("airflow", f"--file={QUERIES / 'figures.sql'}")))


def lost(recorded: Mapping[str, Any], restored: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the backup recorded and the restored database lacks."""
    if recorded and recorded["revision"] != restored["revision"]:
        yield f"the schema is {restored['revision']}, it was {recorded['revision']} at the backup"
    for table, number in recorded.get("rows", {}).items():
        if (rows := restored["rows"].get(table, 0)) < number:
            yield f"{table} has {rows} rows, it had {number} at the backup"


def at_least(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that a backup surely has, from those before and after it: rows come and go meanwhile."""
    rows = {table: min(number, after["rows"].get(table, 0)) for table, number in before["rows"].items()}
    return {"revision": after["revision"], "rows": rows}


def ask(service: Service, database: str, *query: str) -> str:
    """Return the answer of the restored database."""
    # Reading every page takes as long as a backup.
    return service.run(*PSQL, f"--dbname={database}", *query, environment=SOCKET).stdout.strip()


def remove() -> None:
    """Delete the restored database."""
    shutil.rmtree(RESTORED, ignore_errors=True)
