"""Migrate the metadata database and create the accounts of the stack: `python -m airflow_ha.migrate`.

It runs first at every `up` and is idempotent. It prepares the database of Celery's results (result_database.py),
migrates the schema (Airflow's and FAB's), and creates the admin and the monitoring account with the passwords of their
secret files, the connection of `monitoring_dag`, and the pools of the DAGs. Airflow's own commands (`db migrate`,
`users create`, `connections add`, `pools set`) would start Airflow four times and show the passwords in the process
list.

A change of the admin's password in Airflow is kept. A secret file is applied again only if its password differs from
the last one. A table of our own holds a salted hash of that password: unlike a Variable, tasks and the REST API cannot
read it.
"""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, delete, insert, select

from airflow_ha import result_database
from airflow_ha.monitoring.check_run import CONNECTION
from airflow_ha.secret_masking import SECRETS

ADMIN = "admin"
MONITORING = "monitoring"

MONITORING_ROLE = "Monitoring"
READABLE = (
    "DAGs",  # all DAGs; the permission on one DAG is `DAG:` and its id
    "DAG Runs",
    "Task Instances",
    "Pools",
    "Jobs",
    "ImportError",
    "Website",  # Airflow gives this to every custom role at each start of an API server
)
"""FAB's names of the resources that the monitoring account may read; it has no other permission."""

REST_API = ("gateway", 8080)
"""Host and port of the REST API for tasks."""

POOLS = {"ml_training": (2, "Limits parallel trainings, which use most of a worker's CPU and memory.")}
"""Slots and description of the pools that are created if missing; an existing pool keeps its settings."""

PASSWORDS = Table(
    "airflow_ha_secret_password",
    MetaData(),
    Column("username", String(64), primary_key=True),
    Column("password_hash", String(256), nullable=False),
)
"""The last applied password of each user's secret file, as a hash."""


def main() -> None:
    """Migrate the schema, then create what is missing."""
    admin, monitoring = secret("airflow_admin_password"), secret("airflow_monitoring_password")
    result_database.prepare(SECRETS)

    from airflow.utils.db import upgradedb

    upgradedb()
    create_users(admin, monitoring)
    create_connection(monitoring)
    create_pools()


def secret(name: str) -> str:
    """Return the content of a secret file; exit if it is empty."""
    path = SECRETS / name
    text = path.read_text().strip()
    if not text:
        sys.exit(f"cannot read the password: {path} is empty. hint: write it to compose/secrets/{name}")
    return text


def create_users(admin_password: str, monitoring_password: str) -> None:
    """Create the admin and the monitoring account, or apply the passwords of their secret files.

    The monitoring account always gets the password of its file, the admin only if its file has changed.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        admin_changed = is_changed(ADMIN, admin_password)
        create_user(security, ADMIN, security.find_role("Admin"), admin_password, reset=admin_changed)
        if admin_changed is not False:
            store_hash(ADMIN, admin_password)
        create_user(security, MONITORING, create_monitoring_role(security), monitoring_password, reset=True)


def create_user(security: Any, name: str, role: Any, password: str, *, reset: bool | None) -> None:
    """Create a user with one role, or set its password. The roles of an existing admin do not change.

    Args:
        security: FAB's security manager.
        name: The user name.
        role: The only role of a new user, and of an existing user other than the admin.
        password: The password in the secret file.
        reset: Whether to replace another password of an existing user.
    """
    from werkzeug.security import check_password_hash

    user = security.find_user(username=name)
    if user is None:
        if not security.add_user(name, "Stack", name.capitalize(), f"{name}@localhost", role, password):
            sys.exit(f"cannot create the user {name}: see the lines above")
        print(f"created the user {name}")
        return
    if not check_password_hash(user.password, password):
        if reset:
            security.reset_password(user.id, password)
            print(f"set the password of {name} to that of the secret file")
        else:
            print(f"kept the password of {name}, which differs from the secret file")
    if name != ADMIN and user.roles != [role]:
        user.roles = [role]
        security.update_user(user)
        print(f"gave {name} the role {role.name} and no other")


def is_changed(username: str, password: str) -> bool | None:
    """Return whether a secret file's password differs from the last one; None if no last one is stored."""
    from airflow.utils.session import create_session
    from werkzeug.security import check_password_hash

    with create_session() as session:
        PASSWORDS.create(session.connection(), checkfirst=True)
        last = session.scalar(select(PASSWORDS.c.password_hash).where(PASSWORDS.c.username == username))
    return None if last is None else not check_password_hash(last, password)


def store_hash(username: str, password: str) -> None:
    """Store a hash of a secret file's password."""
    from airflow.utils.session import create_session
    from werkzeug.security import generate_password_hash

    with create_session() as session:
        session.execute(delete(PASSWORDS).where(PASSWORDS.c.username == username))
        session.execute(insert(PASSWORDS).values(username=username, password_hash=generate_password_hash(password)))


def create_monitoring_role(security: Any) -> Any:
    """Create the role with exactly the permissions that monitoring needs; remove all others."""
    role = security.add_role(MONITORING_ROLE)
    required = [security.create_permission("can_read", resource) for resource in READABLE]
    for permission in [each for each in role.permissions if each not in required]:
        security.remove_permission_from_role(role, permission)
    for permission in required:
        security.add_permission_to_role(role, permission)
    return role


def create_connection(password: str) -> None:
    """Create the connection of `monitoring_dag` to the REST API, or set its password."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    host, port = REST_API
    with create_session() as session:
        connection = session.scalar(select(Connection).where(Connection.conn_id == CONNECTION))
        if connection is None:
            description = "Airflow's REST API with a read-only account, for monitoring_dag"
            connection = Connection(
                conn_id=CONNECTION,
                conn_type="http",
                host=host,
                port=port,
                login=MONITORING,
                description=description,
            )
            connection.set_password(password)
            session.add(connection)
            print(f"created the connection {CONNECTION}")
        elif (connection.login, readable_password(connection)) != (MONITORING, password):
            connection.login = MONITORING
            connection.set_password(password)
            print(f"set the password of the connection {CONNECTION}")


def readable_password(connection: Any) -> str | None:
    """Return a connection's password; None if it was encrypted with another key."""
    from cryptography.fernet import InvalidToken

    try:
        password: str | None = connection.password
    except InvalidToken:
        return None
    return password


def create_pools() -> None:
    """Create the missing pools."""
    from airflow.models.pool import Pool

    existing = {pool.pool for pool in Pool.get_pools()}
    for name, (slots, description) in POOLS.items():
        if name not in existing:
            Pool.create_or_update_pool(name, slots=slots, description=description, include_deferred=False)
            print(f"created the pool {name} with {slots} slots")


if __name__ == "__main__":
    main()
