"""Whole runs in this process, on a database of their own: no broker, no workers."""

import os
from time import monotonic
from types import SimpleNamespace

import pendulum
import pytest

NIGHT = pendulum.datetime(2026, 9, 1, 2)


@pytest.fixture(scope="module", autouse=True)
def database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a DAG to its end and tell the states and the results of its tasks."""
    monkeypatch.setenv("AIRFLOW_VAR_ML_ARTIFACTS_ROOT", f"file://{tmp_path}/artifacts")

    def start(dag_id="ml_pipeline_dag", logical_date=NIGHT, **conf):
        from airflow.dag_processing.dagbag import DagBag
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        # Parsed afresh, as a worker does: test() leaves its conf in the DAG's params.
        dag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags[dag_id]
        finished = dag.test(logical_date=logical_date, run_conf=conf)
        instances = finished.get_task_instances()
        with create_session() as session:
            values = session.scalars(
                select(XComModel).where(XComModel.run_id == finished.run_id, XComModel.key == "return_value")
            )
            results = {(value.task_id, value.map_index): value.value for value in values}
        return SimpleNamespace(
            state=finished.state,
            states={instance.task_id: instance.state for instance in instances},
            tries={instance.task_id: instance.try_number for instance in instances},
            results=results,
            result=results.get(("report_result", -1)),
        )

    return start


def reused(run):
    return [value["reused"] for value in run.results.values() if isinstance(value, dict) and "reused" in value]


def test_a_run_registers_a_model_and_a_second_one_of_the_same_date_does_no_work_twice(run, tmp_path):
    first = run()

    assert first.state == "success", first.states
    assert first.result["outcome"] == "registered"
    assert first.result["accuracy"] >= 0.95
    assert first.states["reject_model"] == "skipped"
    # download, validate, preprocess, four trainings, evaluate, register
    assert reused(first) == [False] * 9
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    second = run()

    assert second.state == "success", second.states
    assert second.result == first.result
    assert reused(second) == [True] * 9
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written


def test_a_model_below_the_gate_is_rejected_with_the_reason_and_the_run_still_succeeds(run, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_QUALITY_GATE_ACCURACY", "0.999")
    rejected = run()

    assert rejected.state == "success", rejected.states
    assert rejected.states["register_model"] == "skipped"
    assert rejected.result["outcome"] == "rejected"
    assert "is below the required 0.9990" in rejected.result["reason"]


def test_a_gate_that_is_no_accuracy_fails_the_run_at_once_with_the_cure(run, monkeypatch, capfd):
    monkeypatch.setenv("AIRFLOW_VAR_ML_QUALITY_GATE_ACCURACY", "95")
    failed = run()

    assert failed.state == "failed"
    assert failed.states["judge_quality"] == "failed"
    assert failed.tries["judge_quality"] == 1
    assert "must be a number from 0 to 1, such as 0.95" in "".join(capfd.readouterr())


def test_too_little_data_fails_the_run_at_once_with_the_figures(run, tmp_path, capfd):
    rows = [f"{row},{row % 2}" for row in range(999)]
    (tmp_path / "few.csv").write_text("\n".join(["a,label", *rows]))

    failed = run(source=f"file://{tmp_path}/few.csv")

    assert failed.state == "failed"
    assert failed.states["download_data"] == "success"
    assert failed.states["validate_data"] == "failed"
    assert failed.tries["validate_data"] == 1
    assert failed.states["report_result"] == "upstream_failed"
    assert "999 samples, at least 1,000 are needed" in "".join(capfd.readouterr())


def test_a_run_without_a_logical_date_keeps_its_artifacts_under_its_run_id(run):
    finished = run(logical_date=None)

    assert finished.state == "success", finished.states
    assert finished.result["version"].startswith("manual__")


def test_the_canary_measures_how_late_it_ran(run):
    started = monotonic()
    finished = run("canary_dag")

    assert finished.state == "success"
    assert 0 < finished.results[("measure_latency", -1)] < monotonic() - started


def test_monitoring_tells_and_remembers_what_it_finds_until_it_is_gone(run, monkeypatch):
    from airflow.models.variable import Variable

    from airflow_ha.monitoring import check_run as monitoring
    from airflow_ha.monitoring import check_state
    from airflow_ha.monitoring.observations import ImportProblem, Observations

    problems = [ImportProblem("x.py", "NameError: y")]
    monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", "http://monitoring:password@gateway:8080")
    monkeypatch.setattr(
        monitoring, "observe", lambda api, limits, at: Observations(at=at, import_problems=tuple(problems))
    )

    found = run("monitoring_dag")
    remembered = check_state.load(Variable.get(check_state.VARIABLE))
    problems.clear()
    gone = run("monitoring_dag", logical_date=NIGHT.add(minutes=1))

    assert (found.state, gone.state) == ("success", "success")
    assert found.results[("check", -1)] == {"AirflowImportErrors": 1}
    assert [told.labels["file"] for told in remembered.told] == ["x.py"]
    assert gone.results[("check", -1)] == {}
    assert check_state.load(Variable.get(check_state.VARIABLE)).told == ()
