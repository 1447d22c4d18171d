"""Rules that every DAG file follows."""

from pathlib import Path

import pytest

from tests.unit.forks import in_forks

DAG_FILES = sorted((Path(__file__).parents[3] / "dags").glob("*.py"))


def tasks(dag_bag):
    return [(f"{dag_id}.{task.task_id}", task) for dag_id, dag in dag_bag.dags.items() for task in dag.tasks]


def test_every_dag_file_imports(dag_bag):
    assert dag_bag.import_errors == {}


def test_every_dag_file_defines_a_dag_of_the_same_name(dag_bag):
    assert sorted(dag_bag.dags) == [file.stem for file in DAG_FILES]


def test_no_dag_has_a_cycle(dag_bag):
    for dag in dag_bag.dags.values():
        dag.check_cycle()


def test_a_cycle_is_an_import_error(tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "cycle.py").write_text(
        "from airflow.sdk import DAG\n"
        "from airflow.providers.standard.operators.empty import EmptyOperator\n"
        "with DAG('cycle', schedule=None):\n"
        "    a, b = EmptyOperator(task_id='a'), EmptyOperator(task_id='b')\n"
        "    a >> b >> a\n"
    )

    errors = DagBag(dag_folder=str(tmp_path)).import_errors

    assert "Cycle" in "".join(errors.values())


def test_every_task_has_a_team_as_owner(dag_bag):
    assert [name for name, task in tasks(dag_bag) if task.owner in ("", "airflow")] == []


def test_every_dag_has_tags(dag_bag):
    assert [dag_id for dag_id, dag in dag_bag.dags.items() if not dag.tags] == []


def test_every_task_has_retries(dag_bag):
    assert [name for name, task in tasks(dag_bag) if task.retries < 1] == []


def test_every_task_has_an_execution_timeout(dag_bag):
    assert [name for name, task in tasks(dag_bag) if task.execution_timeout is None] == []


def test_no_dag_catches_up_and_every_dag_has_limits(dag_bag):
    assert [
        dag_id
        for dag_id, dag in dag_bag.dags.items()
        if dag.catchup or dag.dagrun_timeout is None or dag.max_active_runs > 16
    ] == []


def test_every_start_date_has_a_time_zone(dag_bag):
    assert [dag_id for dag_id, dag in dag_bag.dags.items() if dag.start_date.tzinfo is None] == []


def test_every_dag_is_unpaused_at_creation(dag_bag):
    assert [dag_id for dag_id, dag in dag_bag.dags.items() if dag.is_paused_upon_creation is not False] == []


def test_every_dag_has_documentation(dag_bag):
    assert [dag_id for dag_id, dag in dag_bag.dags.items() if not dag.doc_md] == []


PARSE = """
import pathlib, runpy, sys
runpy.run_path({file!r})
heavy = {{"numpy", "scipy", "sklearn", "joblib", "botocore", "s3fs"}}
print(sorted(heavy & set(sys.modules)), pathlib.Path({home!r}, "airflow.db").exists())
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """By file: the heavy libraries that parsing it loads, and whether it creates a database."""
    home = str(tmp_path_factory.mktemp("home"))
    scripts = [PARSE.format(file=str(file), home=home) for file in DAG_FILES]
    return dict(zip(DAG_FILES, in_forks("import airflow.sdk", scripts, AIRFLOW_HOME=home), strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.stem)
def test_parsing_loads_no_ml_library_and_no_database(file, parsed):
    assert parsed[file] == "[] False"
