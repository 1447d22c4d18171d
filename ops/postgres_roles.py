"""The roles of Postgres that log in, their secrets, and the interim role with which clients log in during a rotation.

A role has one password. While it changes, its clients use a member of it with a password of its own: sessions start as
the role itself (`ALTER ROLE … SET role`), so that what they create belongs to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from ops.rotation_state import InUse

PASSWORDS: Final = {
    "postgres": "postgres_superuser_password",
    "airflow": "postgres_airflow_password",
    "celery_results": "postgres_celery_password",
    "monitoring": "postgres_monitoring_password",
}
"""The secret of each role that clients log in with."""
QUIET: Final = (
    "SET client_min_messages = error; SET log_min_error_statement = panic; SET log_min_duration_statement = -1;\n"
)
"""Postgres logs failed and slow statements. These contain passwords, so logging is off."""


def interim(role: str) -> str:
    """Return the role with which the clients of a role log in while its password changes."""
    return f"{role}_interim"


def user_and_password(role: str, secrets: InUse) -> tuple[str, str]:
    """Return what the clients of a role log in with now."""
    name = PASSWORDS[role]
    return (interim(role), secrets.beside[name]) if name in secrets.interim else (role, secrets.current[name])


def url_login(role: str, secrets: InUse) -> str:
    """Return what the clients of a role log in with now, for a URL; an operator's own password may need quotes."""
    user, password = user_and_password(role, secrets)
    return f"{user}:{quote(password, safe='')}"


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


CREATE_INTERIM: Final = """\
SELECT format('CREATE ROLE %I', :'interim') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'interim') \\gexec
GRANT :"role" TO :"interim";
SELECT format('ALTER ROLE %I CONNECTION LIMIT %s', :'interim', rolconnlimit)
  FROM pg_roles WHERE rolname = :'role' \\gexec
SELECT format('ALTER ROLE %I SET %I = %s', :'interim', name, CASE WHEN name = 'search_path' THEN value
    ELSE quote_literal(value) END)
  FROM pg_roles, unnest(rolconfig) AS line, split_part(line, '=', 1) AS name,
    substr(line, strpos(line, '=') + 1) AS value WHERE rolname = :'role' \\gexec
ALTER ROLE :"interim" SET role = :'role';
"""
"""The interim role has the limit and the settings of the role: these are of the role that logs in."""


def create_interim(role: str, password: str) -> str:
    """Return the statements for psql that create the interim role, or give it its password again."""
    other = interim(role)
    return (
        f"{QUIET}\\set role {role}\n\\set interim {other}\n{CREATE_INTERIM}"
        f"ALTER ROLE {other} LOGIN PASSWORD {literal(password)};\n"
    )


def set_password(role: str, password: str) -> str:
    """Return the statements for psql that set a role's password."""
    return f"{QUIET}ALTER ROLE {role} PASSWORD {literal(password)};\n"


def drop_interim(role: str) -> str:
    """Return the statements for psql that drop the interim role, if it exists."""
    return f"DROP ROLE IF EXISTS {interim(role)};\n"
