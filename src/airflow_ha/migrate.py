"""Brings the metadata database to this version and puts in what the stack needs: `python -m airflow_ha.migrate`.

Runs before everything else at every `up`, and changes nothing the second time: the schema (Airflow's and FAB's), the
admin user with the password of the secret file, and the pools that the DAGs use. It takes the place of `airflow db
migrate`, `airflow users create` and `airflow pools set`, which would start Airflow three times and put the password
into the process list.
"""

from __future__ import annotations

import sys
from pathlib import Path

ADMIN = "admin"
ADMIN_PASSWORD_FILE = Path("/run/secrets/airflow_admin_password")

POOLS = {"ml_training": (2, "Models trained at the same time: training is what takes a worker's CPU and memory.")}
"""Pools that are made when missing, with their slots; one that is there keeps what its operator set."""


def main() -> None:
    """Migrates, then makes what is missing."""
    password = ADMIN_PASSWORD_FILE.read_text().strip()
    if not password:
        sys.exit(f"{ADMIN_PASSWORD_FILE} is empty: put the admin password into compose/secrets/airflow_admin_password")

    from airflow.utils.db import upgradedb

    upgradedb()
    make_admin(password)
    make_pools()


def make_admin(password: str) -> None:
    """Makes the admin user, or sets its password to the secret file's when that has changed."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        user = security.find_user(username=ADMIN)
        if user is None:
            role = security.find_role("Admin")
            if not security.add_user(ADMIN, "Stack", "Admin", "admin@localhost", role, password):
                sys.exit(f"could not make the user {ADMIN}: see the lines above")
            print(f"made the user {ADMIN}")
        elif not check_password_hash(user.password, password):
            security.reset_password(user.id, password)
            print(f"set the password of {ADMIN} to that of the secret file")


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
