"""The rules of old rows; tests/images/test_maintenance.py applies them in a real Postgres."""

from __future__ import annotations

import pytest

from airflow_ha.maintenance import rows
from tests.retention_limits import LIMITS

GO_WITH_A_RUN = {"deadline", "task_instance", "task_instance_history", "task_reschedule", "xcom"}
STAY = {
    "dag": "its deletion fails at its versions (https://github.com/apache/airflow/issues/71864); `airflow dags delete`",
    "trigger": "the triggerer deletes unused ones, and a used one would take its task instance with it",
    "_xcom_archive": "the migration from Airflow 2 creates it; this stack began with Airflow 3",
    "celery_taskmeta": "results are in a database of their own",
    "celery_tasksetmeta": "results are in a database of their own",
}


def test_each_table_of_airflows_own_command_is_considered():
    """A table that a new version adds needs a decision."""
    from airflow.utils.db_cleanup import config_dict

    ours = {rule.table: rule for rule in rows.metadata_rules(LIMITS, [])}
    assert set(config_dict) - GO_WITH_A_RUN - STAY.keys() - {"session"} == ours.keys() - {"session"}
    other_age = {"dag_run"}  # the end of a run: one that ran for 90 days is not old at its end
    assert {
        name
        for name, config in config_dict.items()
        if name in ours and ours[name].age != f"base.{config.recency_column_name}"
    } == other_age


@pytest.mark.parametrize(
    ("rows_before", "deleted", "seconds", "expected"),
    [
        (100, 100, 0.001, 200),  # at most twice
        (100, 100, 0.2, 50),
        (100, 100, 100.0, 10),  # at least a tenth
        (1, 1, 60.0, 1),
        (8000, 8000, 0.01, rows.MAX_ROWS),
        (500, 0, 5.0, 500),
    ],
)
def test_transactions_aim_at_a_tenth_of_a_second(rows_before, deleted, seconds, expected):
    assert rows.next_rows(rows_before, deleted, seconds) == expected


def test_a_deletion_reads_its_pages_only_and_waits_for_no_row():
    statement = rows.delete_statement(rows.Rule("jobs", "job", "base.latest_heartbeat", 90), 256, 50)
    assert "base.ctid >= '(256,0)' AND base.ctid < '(384,0)'" in statement
    assert "LIMIT 50 FOR UPDATE OF base SKIP LOCKED" in statement
