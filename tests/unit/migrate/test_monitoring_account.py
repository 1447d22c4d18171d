"""The account that monitoring uses, in a real Airflow: made once, and able to read what it needs and nothing else.

The same Airflow answers the monitoring DAG's own questions: the names of its parameters are Airflow's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_it_is_made_once_and_follows_its_secret_file(airflow):
    first, again, changed, _ = airflow["said"]
    assert {"made the user admin", "made the user monitoring", "made the connection airflow_api"} <= set(first)
    assert again == []
    assert changed == [
        "set the password of monitoring to that of the secret file",
        "set the password of the connection airflow_api",
    ]


SET = "set the password of admin to that of the secret file"
KEPT = "kept the password of admin, which is not the one in the secret file"


def test_an_admin_password_changed_in_airflow_is_kept(airflow):
    assert airflow["admin"][0] == [[KEPT], ["of-the-ui"]]


def test_a_changed_secret_file_sets_the_admin_password(airflow):
    assert airflow["admin"][1] == [[SET], ["new"]]


def test_a_new_admin_password_may_be_in_both_places(airflow):
    assert airflow["admin"][2:4] == [[[], ["again"]]] * 2


def test_an_older_stacks_admin_password_is_kept_until_its_file_changes(airflow):
    assert airflow["admin"][4:] == [[[KEPT], ["again"]], [[KEPT], ["again"]], [[SET], ["last"]]]


def test_tasks_get_it_as_a_connection_to_the_gateway(airflow):
    assert airflow["connection"] == ["http", "gateway", 8080, "monitoring", "second"]


def test_what_it_was_given_besides_is_taken_away(airflow):
    assert airflow["said"][3] == ["gave monitoring the role Monitoring and no other"]


def test_it_may_neither_change_anything_nor_read_what_it_does_not_need(airflow):
    assert {what: status for what, status in airflow["refused"].items() if status != 403} == {}
    assert len(airflow["refused"]) > 10


def test_it_sees_everything_that_the_checks_need(airflow):
    found = {(name, *labels.values()): (summary, url) for name, labels, summary, url in airflow["found"]}
    assert found.keys() == {
        ("AirflowFailureRateHigh",),
        ("AirflowDagRunsFailing", "ml_pipeline_dag"),
        ("AirflowComponentDown", "triggerer"),
        ("AirflowQueuedTooLong",),
        ("AirflowTasksUnschedulable", "ml_pipeline_dag", "missing"),
        ("AirflowImportErrors", "x.py"),
    }
    assert found["AirflowDagRunsFailing", "ml_pipeline_dag"] == (
        "ml_pipeline_dag: 3 of 10 runs failed in 24 h (30%)",
        "/dags/ml_pipeline_dag/runs/r%2B0",
    )
    assert found[("AirflowFailureRateHigh",)][0] == "3 of 10 DAG runs failed in 24 h (30%)", "without the canary's"
    assert airflow["running"] == {"worker-1": 1}
    assert airflow["pools"] == ["default_pool", "ml_training"]
    assert airflow["due"] == ["canary_dag", "ml_pipeline_dag", "monitoring_dag"]
