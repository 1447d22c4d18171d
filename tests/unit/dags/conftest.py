"""The DAG files as the dag-processor parses them."""

from pathlib import Path

import pytest

DAGS = Path(__file__).parents[3] / "dags"


@pytest.fixture(scope="session")
def dag_bag():
    """All DAGs of the project, freshly parsed."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(DAGS))
