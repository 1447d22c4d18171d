"""Brings the metadata database to this version and puts in what the stack needs: `python -m airflow_ha.migrate`.

Runs before everything else at every `up`, and changes nothing the second time: the schema (Airflow's and FAB's), the
admin user and the monitoring account with the passwords of their secret files, the connection through which
`monitoring_dag` uses that account, and the pools that the DAGs use. It takes the place of Airflow's own commands (`db
migrate`, `users create`, `connections add`, `pools set`), which would start Airflow four times and put the passwords
into the process list.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow_ha.monitoring.run import CONNECTION

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
    """Makes the admin and the monitoring account, or sets their passwords to the secret files'."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        make_user(security, ADMIN, security.find_role("Admin"), admin_password)
        make_user(security, MONITORING, make_monitoring_role(security), monitoring_password)


def make_user(security: Any, name: str, role: Any, password: str) -> None:
    """Makes a user with one role, or sets its password when that has changed. The admin's roles are the operator's."""
    from werkzeug.security import check_password_hash

    user = security.find_user(username=name)
    if user is None:
        if not security.add_user(name, "Stack", name.capitalize(), f"{name}@localhost", role, password):
            sys.exit(f"could not make the user {name}: see the lines above")
        print(f"made the user {name}")
        return
    if not check_password_hash(user.password, password):
        security.reset_password(user.id, password)
        print(f"set the password of {name} to that of the secret file")
    if name != ADMIN and user.roles != [role]:
        user.roles = [role]
        security.update_user(user)
        print(f"gave {name} the role {role.name} and no other")


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
    from sqlalchemy import select

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
