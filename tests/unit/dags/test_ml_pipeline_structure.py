"""The structure of `ml_pipeline_dag`."""

from datetime import timedelta

import pytest

from airflow_ha.ml.failure_email import send_failure_email
from airflow_ha.ml.sensor import DataSensor


@pytest.fixture
def dag(dag_bag):
    return dag_bag.dags["ml_pipeline_dag"]


def test_runs_nightly_at_two_with_two_retries_a_minute_apart(dag):
    assert dag.schedule == "0 2 * * *"
    assert dag.tags == {"ml", "production"}
    assert {(task.owner, task.retries, task.retry_delay) for task in dag.tasks} == {
        ("ml-team", 2, timedelta(minutes=1))
    }


def test_steps_run_in_the_expected_order(dag):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "plan_run": {
            "wait_for_data",
            "download_data",
            "validate_data",
            "preprocess_data",
            "train_candidates.train_model",
            "evaluate_models",
            "register_model",
            "reject_model",
            "report_result",
        },
        "wait_for_data": {"download_data"},
        "download_data": {"validate_data"},
        "validate_data": {"preprocess_data"},
        "preprocess_data": {"train_candidates.train_model"},
        "train_candidates.train_model": {"evaluate_models"},
        "evaluate_models": {"judge_quality", "register_model", "reject_model"},
        "judge_quality": {"register_model", "reject_model"},
        "register_model": {"report_result"},
        "reject_model": {"report_result"},
        "report_result": set(),
    }


def test_waits_for_the_data_with_a_deferrable_sensor(dag):
    assert isinstance(dag.get_task("wait_for_data"), DataSensor)


def test_trainings_are_mapped_and_limited_by_their_pool(dag):
    pools = {task.task_id: task.pool for task in dag.tasks if task.pool != "default_pool"}

    assert pools == {"train_candidates.train_model": "ml_training"}
    assert dag.get_task("train_candidates.train_model").is_mapped


def test_either_branch_leads_to_the_report(dag):
    assert dag.get_task("report_result").trigger_rule == "none_failed_min_one_success"


def test_every_step_sends_an_email_on_failure(dag):
    assert [task.task_id for task in dag.tasks if task.on_failure_callback != [send_failure_email]] == []
