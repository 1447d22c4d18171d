"""Checks of a restored database, for a throw-away stack: schema, pages and indexes, rows, and what is encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import NullPool, create_engine, func, inspect, make_url, select, table, text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

TABLES: Final = (
    "ab_role",
    "ab_user",
    "asset",
    "asset_event",
    "backfill",
    "connection",
    "dag",
    "dag_run",
    "dag_version",
    "log",
    "serialized_dag",
    "slot_pool",
    "task_instance",
    "task_instance_history",
    "variable",
    "xcom",
)
"""The tables whose rows are counted: what an operator would miss. Others hold what the next minutes create again."""

DATABASES: Final = text("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname")
INDEXES: Final = text(
    "SELECT c.oid::regclass::text, c.oid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_am a ON a.oid = c.relam"
    " WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid"
)
"""As in https://www.postgresql.org/docs/current/amcheck.html"""
CHECK_INDEX: Final = text("SELECT bt_index_check(index => CAST(:oid AS oid)::regclass, heapallindexed => true)")
CHECK_HEAPS: Final = text(
    "SELECT c.oid::regclass::text, h.blkno, h.msg FROM pg_class c, LATERAL verify_heapam(relation => c.oid) h"
    " WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'"
)
"""Tables, their TOAST tables included."""

ENCRYPTED: Final = text("""
SELECT 'the password of connection ' || conn_id, password FROM connection WHERE is_encrypted AND password <> ''
UNION ALL SELECT 'the extra of connection ' || conn_id, extra FROM connection WHERE is_extra_encrypted AND extra <> ''
UNION ALL SELECT 'variable ' || key, val FROM variable WHERE is_encrypted AND val <> ''
UNION ALL SELECT 'the arguments of trigger ' || id, kwargs FROM trigger WHERE NOT starts_with(kwargs, '{')
UNION ALL SELECT 'the password of connection test ' || id, password FROM connection_test_request
  WHERE is_encrypted AND password <> ''
UNION ALL SELECT 'the extra of connection test ' || id, extra FROM connection_test_request
  WHERE is_extra_encrypted AND extra <> ''
ORDER BY 1
""")
"""By SQL, because an object of Airflow decrypts itself when it is loaded. Some triggers are stored in plain text."""


def check(session: Session, superuser_url: str) -> dict[str, Any]:
    """Return the problems of the metadata database, and the figures to compare with those of the backup.

    Args:
        session: Of the metadata database.
        superuser_url: Of Postgres; empty for an external one, whose pages and indexes are then not checked.
    """
    damaged = damage(superuser_url) if superuser_url else []
    encrypted = session.execute(ENCRYPTED).all()
    unreadable = [name for name, token in encrypted if not is_decryptable(token)]
    return {
        "revision": session.scalar(text("SELECT version_num FROM alembic_version")),
        "rows": count_rows(session),
        "encrypted": len(encrypted),
        "amcheck": bool(superuser_url),
        "problems": [
            *migration_problems(),
            *damaged,
            *(f"cannot decrypt {name}: it was encrypted with another Fernet key" for name in unreadable),
        ],
    }


def migration_problems() -> list[str]:
    """Return a text with both heads if the schema differs from that of the installed code; FAB's counts too."""
    from airflow.utils.db import check_migrations

    try:
        check_migrations(timeout=1)
    except TimeoutError as error:
        return [f"the schema differs from the installed Airflow: {str(error).partition('seconds. ')[2]}"]
    return []


def count_rows(session: Session) -> dict[str, int]:
    """Return the number of rows of each table of TABLES that exists."""
    existing = set(inspect(session.connection()).get_table_names())
    return {
        name: session.scalar(select(func.count()).select_from(table(name))) or 0 for name in TABLES if name in existing
    }


def damage(superuser_url: str) -> list[str]:
    """Return what amcheck reports of every table and B-tree index of all databases."""
    with create_engine(superuser_url, poolclass=NullPool).connect() as connection:
        databases = connection.scalars(DATABASES).all()
    return [problem for database in databases for problem in damage_of(database, superuser_url)]


def damage_of(database: str, superuser_url: str) -> list[str]:
    """Return what amcheck reports of one database."""
    url = make_url(superuser_url).set(database=database)
    with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS amcheck"))
        heaps = [f"{database}.{name}, page {page}: {reason}" for name, page, reason in connection.execute(CHECK_HEAPS)]
        return heaps + [f"{database}.{name}: {reason}" for name, reason in damaged_indexes(connection)]


def damaged_indexes(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the name of each damaged index, and the reason: amcheck ends at the first problem of an index."""
    for name, oid in connection.execute(INDEXES).all():
        try:
            connection.execute(CHECK_INDEX, {"oid": oid})
        except DBAPIError as error:
            yield name, str(error.orig).strip()


def is_decryptable(token: str) -> bool:
    """Return whether the Fernet key decrypts a value; False also without a key."""
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import InvalidToken

    fernet = get_fernet()
    try:
        fernet.decrypt(token.encode())
    except InvalidToken:
        return False
    return bool(fernet.is_encrypted)
