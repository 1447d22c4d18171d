"""Print facts about an Airflow image as JSON; `image_facts` runs it in a container without a network.

It uses only what Airflow images of several versions have, and nothing of this project.
"""

import contextlib
import json
import sys
from typing import Any

DAGS = "/opt/airflow/dags"


def migrations() -> dict[str, Any]:
    """Return the migrations of each table of versions: those of Airflow, and of its auth manager."""
    from airflow.utils.db import _get_alembic_config
    from airflow.utils.db_manager import RunDBManager
    from alembic.script import ScriptDirectory

    scripts = {"alembic_version": ScriptDirectory.from_config(_get_alembic_config())}
    for manager in RunDBManager()._managers:
        scripts[manager.version_table_name] = ScriptDirectory(manager.migration_dir)
    return {
        table: {
            "heads": sorted(script.get_heads()),
            "known": sorted(revision.revision for revision in script.walk_revisions()),
        }
        for table, script in scripts.items()
    }


def import_errors() -> dict[str, str]:
    """Return the last line of each import error by DAG file. Without a database, a file that reads one fails too."""
    from airflow.dag_processing.dagbag import DagBag

    return {file: (str(error).strip().splitlines() or [""])[-1] for file, error in DagBag(DAGS).import_errors.items()}


# Airflow and DAG files print to stdout.
with contextlib.redirect_stdout(sys.stderr):
    from airflow.version import version

    facts = {"version": version, "migrations": migrations(), "import_errors": import_errors()}
print(json.dumps(facts))
