"""Brings the metadata database to this version and puts in what the stack needs: `python -m airflow_ha.migrate`.

Runs before everything else at every `up`, and changes nothing the second time: the schema (Airflow's and FAB's), the
admin user and the monitoring account with the passwords of their secret files, the connection through which
`monitoring_dag` uses that account, and the pools that the DAGs use. It takes the place of Airflow's own commands (`db
migrate`, `users create`, `connections add`, `pools set`), which would start Airflow four times and put the passwords
into the process list.

The admin's password belongs to its user once it is set: one that was changed in Airflow stays. Only a secret file that
holds another password than the last time is applied again. So a table of our own keeps a salted hash of that password;
tasks and the REST API cannot read it, as they could a Variable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, delete, insert, select

from airflow_ha.monitoring.check_run import CONNECTION

SECRETS = Path("/run/secrets")
ADMIN = "admin"
MONITORING = "monitoring"

MONITORING_ROLE = "Monitoring"
READABLE = (
    "DAGs",  # all of them: the permission on one is called `DAG:` and its name
    "DAG Runs",
    "Task Instances",
    "Pools",
    "Jobs",
    "ImportError",
    "Website",  # Airflow gives this to every role of one's own, at each start of an API server
)
"""What the monitoring account may read, by FAB's names; it may do nothing else."""

GATEWAY = ("gateway", 8080)
"""Where tasks find the REST API."""

POOLS = {"ml_training": (2, "Models trained at the same time: training is what takes a worker's CPU and memory.")}
"""Pools that are made when missing, with their slots; one that is there keeps what its operator set."""

PASSWORDS = Table(
    "airflow_ha_secret_password",
    MetaData(),
    Column("username", String(64), primary_key=True),
    Column("password_hash", String(256), nullable=False),
)
"""The password that a user's secret file held the last time."""


def main() -> None:
    """Migrates, then makes what is missing."""
    admin, monitoring = secret("airflow_admin_password"), secret("airflow_monitoring_password")

    from airflow.utils.db import upgradedb

    upgradedb()
    make_users(admin, monitoring)
    make_connection(monitoring)
    make_pools()


def secret(name: str) -> str:
    """The text of a secret file."""
    path = SECRETS / name
    text = path.read_text().strip()
    if not text:
        sys.exit(f"{path} is empty: put the password into compose/secrets/{name}")
    return text


def make_users(admin_password: str, monitoring_password: str) -> None:
    """Makes the admin and the monitoring account, or sets the passwords that their secret files hold.

    The monitoring account's is always that of its file, the admin's only when the file has changed.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        admin_changed = is_changed(ADMIN, admin_password)
        make_user(security, ADMIN, security.find_role("Admin"), admin_password, reset=admin_changed)
        if admin_changed is not False:
            remember(ADMIN, admin_password)
        make_user(security, MONITORING, make_monitoring_role(security), monitoring_password, reset=True)


def make_user(security: Any, name: str, role: Any, password: str, *, reset: bool | None) -> None:
    """Makes a user with one role, or sets its password. The admin's roles are the operator's.

    Args:
        security: FAB's security manager.
        name: The user's.
        role: The one role of a new user, and of every user but the admin.
        password: The one in the secret file.
        reset: Whether a user who has another password gets this one.
    """
    from werkzeug.security import check_password_hash

    user = security.find_user(username=name)
    if user is None:
        if not security.add_user(name, "Stack", name.capitalize(), f"{name}@localhost", role, password):
            sys.exit(f"could not make the user {name}: see the lines above")
        print(f"made the user {name}")
        return
    if not check_password_hash(user.password, password):
        if reset:
            security.reset_password(user.id, password)
            print(f"set the password of {name} to that of the secret file")
        else:
            print(f"kept the password of {name}, which is not the one in the secret file")
    if name != ADMIN and user.roles != [role]:
        user.roles = [role]
        security.update_user(user)
        print(f"gave {name} the role {role.name} and no other")


def is_changed(username: str, password: str) -> bool | None:
    """Return whether a secret file holds another password than the last time; None when there was no last time."""
    from airflow.utils.session import create_session
    from werkzeug.security import check_password_hash

    with create_session() as session:
        PASSWORDS.create(session.connection(), checkfirst=True)
        last = session.scalar(select(PASSWORDS.c.password_hash).where(PASSWORDS.c.username == username))
    return None if last is None else not check_password_hash(last, password)


def remember(username: str, password: str) -> None:
    """Keep a hash of the password that a secret file holds."""
    from airflow.utils.session import create_session
    from werkzeug.security import generate_password_hash

    with create_session() as session:
        session.execute(delete(PASSWORDS).where(PASSWORDS.c.username == username))
        session.execute(insert(PASSWORDS).values(username=username, password_hash=generate_password_hash(password)))


def make_monitoring_role(security: Any) -> Any:
    """Makes the role that may read what monitoring needs, and takes from it whatever else it was given."""
    role = security.add_role(MONITORING_ROLE)
    wanted = [security.create_permission("can_read", resource) for resource in READABLE]
    for permission in [each for each in role.permissions if each not in wanted]:
        security.remove_permission_from_role(role, permission)
    for permission in wanted:
        security.add_permission_to_role(role, permission)
    return role


def make_connection(password: str) -> None:
    """Makes the connection through which `monitoring_dag` reads the REST API, or sets its password."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    host, port = GATEWAY
    with create_session() as session:
        connection = session.scalar(select(Connection).where(Connection.conn_id == CONNECTION))
        if connection is None:
            description = "Airflow's REST API with an account that may only read, for monitoring_dag"
            connection = Connection(
                conn_id=CONNECTION, conn_type="http", host=host, port=port, login=MONITORING, description=description
            )
            connection.set_password(password)
            session.add(connection)
            print(f"made the connection {CONNECTION}")
        elif (connection.login, readable_password(connection)) != (MONITORING, password):
            connection.login = MONITORING
            connection.set_password(password)
            print(f"set the password of the connection {CONNECTION}")


def readable_password(connection: Any) -> str | None:
    """A connection's password; None when it was encrypted with another key."""
    from cryptography.fernet import InvalidToken

    try:
        password: str | None = connection.password
    except InvalidToken:
        return None
    return password


def make_pools() -> None:
    """Makes the pools that are missing."""
    from airflow.models.pool import Pool

    existing = {pool.pool for pool in Pool.get_pools()}
    for name, (slots, description) in POOLS.items():
        if name not in existing:
            Pool.create_or_update_pool(name, slots=slots, description=description, include_deferred=False)
            print(f"made the pool {name} with {slots} slots")


if __name__ == "__main__":
    main()
