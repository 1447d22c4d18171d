"""A metadata database with the DAGs of one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def store_dags(text: str, folder: Path) -> None:
    """Create the tables, and store the DAGs that a file with this text defines."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    (folder / "dags.py").write_text(text)
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(dag_folder=folder), "dags-folder", None)


def create_run(dag_id: str, run_id: str) -> Any:
    """Create a running, manual run of a stored DAG."""
    from airflow._shared.timezones import timezone
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    return SerializedDagModel.get_dag(dag_id).create_dagrun(
        run_id=run_id,
        run_after=timezone.utcnow(),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="running",
    )
