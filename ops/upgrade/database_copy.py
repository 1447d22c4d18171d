"""A copy of Airflow's database beside it in the same Postgres, made while Airflow is stopped: the way back.

A migration cannot be reverted: `airflow db downgrade` changes the schema and leaves the content of rows
(https://github.com/apache/airflow/issues/68317). Postgres copies the files of a database, and a copy takes its place by
a new name. Replicas get both. It holds what was stored when Airflow stopped, which no earlier backup does.
"""

from __future__ import annotations

from typing import Final

from ops import compose, data_tier, time_limits
from ops.errors import FAILURE, StackError

DATABASE: Final = "airflow"
COPY: Final = "airflow_before_upgrade"
OWNER: Final = "airflow"
# FILE_COPY: by default each block would also be written to the log, and so to the archive and every replica.
TAKE: Final = (
    f"DROP DATABASE IF EXISTS {COPY} WITH (FORCE);",
    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}';",  # noqa: S608  a constant
    f"CREATE DATABASE {COPY} TEMPLATE {DATABASE} OWNER {OWNER} STRATEGY FILE_COPY;",
    # The rights of a database are not copied: compose/postgres/create-databases.sh.
    f"REVOKE CONNECT, TEMPORARY ON DATABASE {COPY} FROM PUBLIC;",
)
# If this is interrupted between the two, the copy still exists and a second call completes it.
RESTORE: Final = (
    f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE);",
    f"ALTER DATABASE {COPY} RENAME TO {DATABASE};",
)
DISCARD: Final = (f"DROP DATABASE IF EXISTS {COPY} WITH (FORCE);",)


def take(name: str) -> None:
    """Copy the database; a copy that an earlier upgrade left is replaced. No client may be connected.

    Args:
        name: The compose project's name.

    Raises:
        StackError: Postgres refuses it.
    """
    run(name, *TAKE)


def exists(name: str) -> bool:
    """Return whether there is a complete copy."""
    return run(name, f"SELECT count(*) FROM pg_database WHERE datname = '{COPY}';") == "1"  # noqa: S608  a constant


def restore(name: str) -> bool:
    """Let the copy take the database's place; the database's content since the copy is lost.

    Returns:
        Whether there was a copy: without one, nothing is done.

    Raises:
        StackError: Postgres refuses it.
    """
    if not exists(name):
        return False
    run(name, *RESTORE)
    return True


def discard(name: str) -> None:
    """Delete the copy, if there is one.

    Raises:
        StackError: Postgres refuses it.
    """
    run(name, *DISCARD)


def size(name: str) -> int:
    """Return the size of the database in bytes.

    Raises:
        StackError: Postgres does not answer.
    """
    return int(run(name, f"SELECT pg_database_size('{DATABASE}');"))


def run(name: str, *statements: str) -> str:
    """Run statements one by one as the superuser, on the primary, and return their output.

    Raises:
        StackError: There is no primary, or a statement failed or has not ended in time.
    """
    command = ("psql", "--no-psqlrc", "-U", "postgres", "-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1")
    # The limit is inside, since Postgres continues a statement whose client is killed.
    limited = (f"SET statement_timeout = '{time_limits.STATEMENTS:.0f}s';", *statements)
    seconds = len(statements) * time_limits.STATEMENTS + time_limits.ENDING
    primary = data_tier.writable_postgres(compose.instances(name))
    result = data_tier.execute(primary, *command, stdin="\n".join(limited), seconds=seconds)
    if result.returncode != 0:
        raise StackError(
            f"cannot copy the database: {data_tier.last_line(result.stderr)}",
            hint="run ./ops/stack logs postgres, with the profile data-ha patroni-1 patroni-2",
            code=FAILURE,
        )
    return result.stdout.strip()
