"""The monitoring account in a real Airflow: created once, and limited to the reads that monitoring needs.

The same Airflow serves the requests of the monitoring DAG, so the parameters' names are checked too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("airflow_of_its_own.py")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(home), str(ROOT / "dags")],
        env={key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_account_is_created_once_and_follows_its_secret_file(airflow):
    first, again, changed, _ = airflow["changes"]
    created = {"created the user admin", "created the user monitoring", "created the connection airflow_api"}
    assert created <= set(first)
    assert again == []
    assert changed == [
        "set the password of monitoring to that of the secret file",
        "set the password of the connection airflow_api",
    ]


SET = "set the password of admin to that of the secret file"
KEPT = "kept the password of admin, which differs from the secret file"


def test_admin_password_changed_in_airflow_is_kept(airflow):
    assert airflow["admin"][0] == [[KEPT], ["of-the-ui"]]


def test_changed_secret_file_sets_the_admin_password(airflow):
    assert airflow["admin"][1] == [[SET], ["new"]]


def test_new_admin_password_may_be_in_both_places(airflow):
    assert airflow["admin"][2:4] == [[[], ["again"]]] * 2


def test_admin_password_of_an_older_stack_is_kept(airflow):
    assert airflow["admin"][4:] == [[[KEPT], ["again"]], [[KEPT], ["again"]], [[SET], ["last"]]]


def test_tasks_get_a_connection_to_the_gateway(airflow):
    assert airflow["connection"] == ["http", "gateway", 8080, "monitoring", "second"]


def test_additional_permissions_are_removed(airflow):
    assert airflow["changes"][3] == ["gave monitoring the role Monitoring and no other"]


def test_account_cannot_write_or_read_unrelated_data(airflow):
    assert {request: status for request, status in airflow["refused"].items() if status != 403} == {}
    assert len(airflow["refused"]) > 10


def test_account_reads_everything_that_the_checks_need(airflow):
    findings = {(name, *labels.values()): (summary, url) for name, labels, summary, url in airflow["findings"]}
    assert findings.keys() == {
        ("AirflowFailureRateHigh",),
        ("AirflowDagRunsFailing", "ml_pipeline_dag"),
        ("AirflowComponentDown", "triggerer"),
        ("AirflowQueuedTooLong",),
        ("AirflowTasksUnschedulable", "ml_pipeline_dag", "missing"),
        ("AirflowImportErrors", "x.py"),
    }
    summary, url = findings["AirflowDagRunsFailing", "ml_pipeline_dag"]
    assert "3 of 10 runs" in summary
    assert url == "/dags/ml_pipeline_dag/runs/r%2B0"
    assert "3 of 10 in 24 h" in findings[("AirflowFailureRateHigh",)][0], "without the canary's"
    assert airflow["running"] == {"worker-1": 1}
    assert airflow["pools"] == ["default_pool", "ml_training"]
    assert airflow["due"] == ["canary_dag", "ml_pipeline_dag", "monitoring_dag"]
