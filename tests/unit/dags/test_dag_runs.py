"""Complete DAG runs in this process, on a temporary database: no broker, no workers."""

import os
from time import monotonic
from types import SimpleNamespace

import pendulum
import pytest

pytestmark = pytest.mark.processes

NIGHT = pendulum.datetime(2026, 9, 1, 2)


@pytest.fixture(scope="module", autouse=True)
def database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a DAG to its terminal state, and return the states and results of its tasks."""
    monkeypatch.setenv("AIRFLOW_VAR_ML_ARTIFACTS_ROOT", f"file://{tmp_path}/artifacts")
    monkeypatch.setenv("AIRFLOW_VAR_ML_DATA_ROOTS", f"file://{tmp_path}")

    def start(dag_id="ml_pipeline_dag", logical_date=NIGHT, **conf):
        from airflow.dag_processing.dagbag import DagBag
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        # Parsed again, as in a worker: test() leaves its conf in the DAG's params.
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


def test_second_run_of_a_date_reuses_all_artifacts(run, tmp_path):
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


def test_model_below_the_gate_is_rejected_and_the_run_succeeds(run, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_QUALITY_GATE_ACCURACY", "0.999")
    rejected = run()

    assert rejected.state == "success", rejected.states
    assert rejected.states["register_model"] == "skipped"
    assert rejected.result["outcome"] == "rejected"
    assert "0.9990" in rejected.result["reason"]


def test_invalid_gate_fails_the_run_without_a_retry(run, monkeypatch, capfd):
    monkeypatch.setenv("AIRFLOW_VAR_ML_QUALITY_GATE_ACCURACY", "95")
    failed = run()

    assert failed.state == "failed"
    assert failed.states["judge_quality"] == "failed"
    assert failed.tries["judge_quality"] == 1
    assert "ml_quality_gate_accuracy: '95'" in "".join(capfd.readouterr())


def test_too_little_data_fails_the_run_without_a_retry(run, tmp_path, capfd):
    rows = [f"{row},{row % 2}" for row in range(999)]
    (tmp_path / "few.csv").write_text("\n".join(["a,label", *rows]))

    failed = run(source=f"file://{tmp_path}/few.csv")

    assert failed.state == "failed"
    assert failed.states["download_data"] == "success"
    assert failed.states["validate_data"] == "failed"
    assert failed.tries["validate_data"] == 1
    assert failed.states["report_result"] == "upstream_failed"
    assert "999 samples" in "".join(capfd.readouterr())


def test_source_outside_the_roots_fails_the_run_unread(run, tmp_path, monkeypatch, capfd):
    secret = tmp_path / "secret"
    secret.write_text("redis://:pass-word@redis\n")
    monkeypatch.setenv("AIRFLOW_VAR_ML_DATA_ROOTS", f"file://{tmp_path}/inbox")

    failed = run(source=f"file://{secret}")

    assert failed.states["wait_for_data"] == "failed"
    assert failed.tries["wait_for_data"] == 1
    assert failed.states["download_data"] == "upstream_failed"
    output = "".join(capfd.readouterr())
    assert "ml_data_roots" in output
    assert "pass-word" not in output


def test_run_without_logical_date_uses_its_run_id_as_version(run):
    finished = run(logical_date=None)

    assert finished.state == "success", finished.states
    assert finished.result["version"].startswith("manual__")


def test_canary_returns_its_latency(run):
    started = monotonic()
    finished = run("canary_dag")

    assert finished.state == "success"
    assert 0 < finished.results[("measure_latency", -1)] < monotonic() - started


def test_monitoring_stores_an_alert_until_it_is_resolved(run, monkeypatch):
    from airflow.models.variable import Variable

    from airflow_ha.monitoring import check_run as monitoring
    from airflow_ha.monitoring import check_state
    from airflow_ha.monitoring.observations import ImportProblem, Observations

    problems = [ImportProblem("x.py", "NameError: y")]
    monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", "http://monitoring:password@gateway:8080")
    monkeypatch.setattr(
        monitoring, "observe", lambda api, limits, at: Observations(at=at, import_problems=tuple(problems))
    )

    failing = run("monitoring_dag")
    stored = check_state.load(Variable.get(check_state.VARIABLE))
    problems.clear()
    resolved = run("monitoring_dag", logical_date=NIGHT.add(minutes=1))

    assert (failing.state, resolved.state) == ("success", "success")
    assert failing.results[("check", -1)] == {"AirflowImportErrors": 1}
    assert [alert.labels["file"] for alert in stored.alerts] == ["x.py"]
    assert resolved.results[("check", -1)] == {}
    assert check_state.load(Variable.get(check_state.VARIABLE)).alerts == ()
