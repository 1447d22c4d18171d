"""The checks of an upgrade before it changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import GIB
from ops import compose, preflight
from ops.errors import StackError
from ops.settings_file import has_own_data
from ops.status import is_ready, service_statuses
from ops.upgrade import database_copy
from ops.upgrade.image_facts import server_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project
    from ops.upgrade.image_facts import AirflowFacts

DISK_RESERVE: Final = 2 * GIB
"""Free space beside the copy of the database: logs, and the write-ahead log of the migration."""
SHOWN_ERRORS: Final = 5
"""Import errors that the error quotes."""
MAJOR_HINT: Final = "keep the image of Postgres, and follow ops/README.md, Upgrade: A major version of Postgres"


def refuse_unhealthy(project: Project) -> None:
    """Refuse a stack that is not healthy: its faults would be mistaken for those of the new version.

    Raises:
        StackError: The error names the services.
    """
    unready = [status["name"] for status in service_statuses(compose.config(project)) if not is_ready(status)]
    if unready:
        raise StackError(
            f"cannot upgrade: {', '.join(unready)} is not healthy, or has another number of instances than .env",
            hint="run ./ops/stack status, then ./ops/stack up to repair the stack",
        )


def needs_migration(old: AirflowFacts, new: AirflowFacts) -> bool:
    """Return whether the new image changes the schema of the database.

    Raises:
        StackError: The new image does not know the schema of the old one: it is older.
    """
    for table, heads in old.heads.items():
        if unknown := sorted(set(heads) - set(new.known.get(table, []))):
            raise StackError(
                f"cannot upgrade from Airflow {old.version} to {new.version}: it does not know the database's schema "
                f"{', '.join(unknown)}",
                where=table,
                hint="choose a later version, or restore a backup of the time before and start the older version on it",
            )
    return dict(old.heads) != dict(new.heads)


def refuse_import_errors(old: AirflowFacts, new: AirflowFacts) -> None:
    """Refuse a new image in which a DAG file fails that imports in the old one.

    Raises:
        StackError: The error quotes the first SHOWN_ERRORS.
    """
    broken = {file: error for file, error in sorted(new.import_errors.items()) if file not in old.import_errors}
    if broken:
        shown = [f"{Path(file).name}: {error}" for file, error in list(broken.items())[:SHOWN_ERRORS]]
        raise StackError(
            f"cannot upgrade: {len(broken)} DAG file(s) import in Airflow {old.version} and not in {new.version}: "
            + "; ".join(shown),
            where=", ".join(broken),
            hint="adapt the files so that they import in both versions",
        )


def refuse_server_changes(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse another major version of Postgres, and an older Redis, which cannot read the data.

    Args:
        old: The settings with the images that run.
        new: The settings with the new images.

    Raises:
        StackError: The error names both versions.
    """
    if not has_own_data(new):
        return
    for key, program in (("POSTGRES_IMAGE", "postgres"), ("REDIS_IMAGE", "redis-server")):
        if old[key] == new[key]:
            continue
        before, after = server_version(old[key], program), server_version(new[key], program)
        versions = ".".join(map(str, before)), ".".join(map(str, after))
        if program == "postgres" and before[0] != after[0]:
            raise StackError(
                f"cannot upgrade Postgres from {versions[0]} to {versions[1]}: the data of another major version must "
                "be converted",
                where=f"{key} in compose/images.env",
                hint=MAJOR_HINT,
            )
        if after[:2] < before[:2]:
            raise StackError(
                f"cannot replace {program} {versions[0]} by the older {versions[1]}: it may not read the data",
                where=f"{key} in compose/images.env",
                hint="choose a version that is not older",
            )


def refuse_full_disk(name: str, nodes: int) -> None:
    """Refuse a disk without room for the copy of the database.

    Args:
        name: The compose project's name.
        nodes: The number of Postgres servers, which all get the copy.

    Raises:
        StackError: The error states the required and the free space.
    """
    preflight.check_disk("copy the database", database_copy.size(name) * nodes + DISK_RESERVE)
