"""Checks of a restored database, for a throw-away stack: schema, pages and indexes, rows, and what is encrypted."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import NullPool, create_engine, make_url, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

QUERIES: Final = Path(__file__).with_name("queries")
FIGURES: Final = text((QUERIES / "figures.sql").read_text(encoding="utf-8"))
DAMAGE: Final = text((QUERIES / "damage.sql").read_text(encoding="utf-8"))
"""Also run by the backup services (compose/backup/restore_check.py)."""
DATABASES: Final = text("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname")
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
    """Return each check with its problems, all problems, and the figures to compare with those of the backup.

    Args:
        session: Of the metadata database.
        superuser_url: Of Postgres; empty for an external one, whose pages and indexes are then not checked.
    """
    encrypted = session.execute(ENCRYPTED).all()
    checks = [
        timed("schema", migration_problems),
        *([timed("pages and indexes", partial(damage, superuser_url))] if superuser_url else []),
        timed("encrypted values", partial(unreadable, encrypted)),
    ]
    return {
        **session.execute(FIGURES).scalar_one(),
        "encrypted": len(encrypted),
        "amcheck": bool(superuser_url),
        "checks": checks,
        "problems": [problem for each in checks for problem in each["problems"]],
    }


def timed(name: str, find_problems: Callable[[], list[str]]) -> dict[str, Any]:
    """Return the name of a check, its problems, and the seconds that it took."""
    started = time.monotonic()
    problems = find_problems()
    return {"check": name, "seconds": round(time.monotonic() - started, 1), "problems": problems}


def migration_problems() -> list[str]:
    """Return a text with both heads if the schema differs from that of the installed code; FAB's counts too."""
    from airflow.utils.db import check_migrations

    try:
        check_migrations(timeout=1)
    except TimeoutError as error:
        return [f"the schema differs from the installed Airflow: {str(error).partition('seconds. ')[2]}"]
    return []


def damage(superuser_url: str) -> list[str]:
    """Return what amcheck reports of every table and B-tree index of all databases."""
    with create_engine(superuser_url, poolclass=NullPool).connect() as connection:
        databases = connection.scalars(DATABASES).all()
    return [problem for database in databases for problem in damage_of(database, superuser_url)]


def damage_of(database: str, superuser_url: str) -> list[str]:
    """Return what amcheck reports of one database."""
    url = make_url(superuser_url).set(database=database)
    with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        return list(connection.scalars(DAMAGE))


def unreadable(encrypted: Sequence[Row[Any]]) -> list[str]:
    """Return a problem for each value that the Fernet key does not decrypt."""
    return [
        f"cannot decrypt {name}: it was encrypted with another Fernet key"
        for name, token in encrypted
        if not is_decryptable(token)
    ]


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
