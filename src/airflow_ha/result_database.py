"""The database of Celery's results: its owner, its table, and the rights of the role that tasks can reach.

Schedulers read as the role `airflow`, the owner. Tasks can reach their worker's role `celery_results`: it may call one
function that stores a state, and nothing else. `airflow_ha.migrate` applies this at every `up`, also to a database of
an older version, in which `celery_results` was the owner.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

if TYPE_CHECKING:
    from pathlib import Path

WORKER_CONNECTIONS: Final = 100
"""The most connections of all workers: each has one, and a second for a moment. Airflow keeps the others."""

WORKER_IS_OWNER: Final = text(
    "SELECT pg_get_userbyid(datdba) = 'celery_results' FROM pg_database WHERE datname = 'celery_results'"
)
RENEW: Final = """
DROP DATABASE IF EXISTS celery_results WITH (FORCE);
CREATE DATABASE celery_results OWNER airflow;
"""
"""No object of the former owner may stay: a trigger or a default of its table would run as the new owner."""

LIMIT_ROLES: Final = f"""
REVOKE CONNECT, TEMPORARY ON DATABASE celery_results FROM PUBLIC;
GRANT CONNECT ON DATABASE celery_results TO celery_results;
ALTER ROLE celery_results CONNECTION LIMIT {WORKER_CONNECTIONS};
ALTER ROLE celery_results SET statement_timeout = '30s';
ALTER ROLE celery_results SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE monitoring CONNECTION LIMIT 20;
ALTER ROLE monitoring SET statement_timeout = '30s';
"""
"""A role may change its own time-outs, so they stop a careless client only; it cannot change its limit."""

LIMIT_FUNCTIONS: Final = """
DO $$
DECLARE name regprocedure;
BEGIN
  FOR name IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname ~ '^(pg_(try_)?advisory_|lo_|lowrite$)' LOOP
    EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || name || ' FROM PUBLIC';
  END LOOP;
END $$
"""
"""Locks that fill the memory of all databases, and large objects that fill the disk, need no right on any table."""

HAND_OVER: Final = "GRANT CONNECT, CREATE ON DATABASE celery_results TO airflow"

CREATE_TABLE: Final = """
CREATE SCHEMA IF NOT EXISTS results;
CREATE TABLE IF NOT EXISTS results.celery_taskmeta (
  task_id varchar(155) PRIMARY KEY,
  status varchar(50) NOT NULL,
  date_done timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
  traceback text
);
CREATE OR REPLACE FUNCTION results.store(task_id text, status text, traceback text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
  INSERT INTO results.celery_taskmeta (task_id, status, traceback) VALUES ($1, $2, right($3, 10000))
  ON CONFLICT (task_id) DO UPDATE
  SET status = EXCLUDED.status, traceback = EXCLUDED.traceback, date_done = EXCLUDED.date_done
$$;
REVOKE ALL ON SCHEMA results FROM PUBLIC;
REVOKE ALL ON FUNCTION results.store FROM PUBLIC;
GRANT USAGE ON SCHEMA results TO celery_results;
GRANT EXECUTE ON FUNCTION results.store TO celery_results;
"""

OLD_STATES: Final = text(
    "SELECT task_id, status, date_done, traceback FROM public.celery_taskmeta"
    " WHERE date_done > now() AT TIME ZONE 'utc' - interval '1 day'"
)
INSERT: Final = text(
    "INSERT INTO results.celery_taskmeta (task_id, status, date_done, traceback)"
    " VALUES (:task_id, :status, :date_done, :traceback) ON CONFLICT DO NOTHING"
)


def prepare(secrets: Path) -> None:
    """Create the table and apply the rights; keep the states of the last day from an older version's table.

    Args:
        secrets: The folder of the secret files: the URLs of the roles `airflow` and `celery_results`, and of the
            superuser, which is empty for an external Postgres.
    """
    owner, worker = engine(secrets / "celery_results_owner"), engine(secrets / "celery_result_backend")
    superuser = secrets / "postgres_superuser_conn"
    if superuser.read_text().strip():
        old = renew(engine(superuser, isolation_level="AUTOCOMMIT"), worker)
    else:
        old = hand_over(owner, worker)
    with owner.begin() as connection:
        connection.exec_driver_sql(CREATE_TABLE)
        if old:
            connection.execute(INSERT, old)
            print(f"kept {len(old)} states of messages from the old table of results")
        if connection.execute(WORKER_IS_OWNER).scalar():
            print(
                "the role celery_results owns its database, so tasks may create tables in it. hint: as a superuser of"
                " your Postgres run: ALTER DATABASE celery_results OWNER TO airflow; ALTER DATABASE celery_results"
                " RESET ALL",
                file=sys.stderr,
            )


def engine(file: Path, **options: Any) -> Engine:
    """Return an engine of the URL in a file, which for Celery begins with `db+`."""
    return create_engine(file.read_text().strip().removeprefix("db+"), **options)


def renew(superuser: Engine, worker: Engine) -> list[dict[str, Any]]:
    """Take the database from the role `celery_results` and limit its rights; return the states of its old table."""
    old: list[dict[str, Any]] = []
    with superuser.connect() as connection:
        worker_is_owner = connection.execute(WORKER_IS_OWNER).scalar()
        if worker_is_owner:
            old = old_states(worker)
            worker.dispose()
        if worker_is_owner is not False:  # None: an earlier run dropped the database and was interrupted
            run(connection, RENEW)
        run(connection, LIMIT_ROLES)
    with create_engine(superuser.url.set(database="celery_results")).begin() as connection:
        connection.exec_driver_sql(LIMIT_FUNCTIONS)
    return old


def run(connection: Connection, statements: str) -> None:
    """Run statements one by one: those about databases refuse to run in a transaction."""
    for statement in filter(str.strip, statements.split(";")):
        connection.exec_driver_sql(statement)


def hand_over(owner: Engine, worker: Engine) -> list[dict[str, Any]]:
    """Let the role `airflow` use an external database of an older version; return the states of its old table."""
    try:
        owner.connect().close()
    except OperationalError:
        with worker.begin() as connection:
            connection.exec_driver_sql(HAND_OVER)
        return old_states(worker)
    return []


def old_states(worker: Engine) -> list[dict[str, Any]]:
    """Return the states in the table that Celery created, as the role that could add code to it."""
    try:
        with worker.connect() as connection:
            return [dict(row) for row in connection.execute(OLD_STATES).mappings()]
    except ProgrammingError:  # no state was ever stored
        return []
