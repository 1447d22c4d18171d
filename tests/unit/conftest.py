"""Give unit tests a temporary AIRFLOW_HOME: importing Airflow writes its configuration there."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

# Set at import: Airflow reads its home once, at its first import.
assert "airflow" not in sys.modules, "Airflow was imported before its home was set"
_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parents[2] / "dags")
# The threads of OpenMP wait for each other, and other test processes have the cores.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process also with --dist=loadgroup: they share rows of Airflow's database."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
