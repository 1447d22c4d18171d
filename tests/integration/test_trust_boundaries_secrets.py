"""What users who may trigger runs, tasks and DAG files cannot read: the secrets of other components."""

from __future__ import annotations

import pytest

from tests.stack import Stack

PIPELINE = "ml_pipeline_dag"
INBOX = "/opt/airflow/artifacts/inbox"


@pytest.mark.parametrize(
    "source",
    [
        "file:///run/secrets/celery_broker_url",
        f"file://{INBOX}/../../../../run/secrets/celery_broker_url",
        f"file://{INBOX}/tests-file-link.csv",
        f"file://{INBOX}/tests-folder-link/celery_broker_url",
        "local:///run/secrets/celery_broker_url",
        "http://gateway:8080/api/v2/version",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_run_reads_no_file_or_service_outside_its_roots(stack: Stack, source: str):
    api, worker = stack.api, stack.containers("worker")[0]
    worker.execute("mkdir", "-p", INBOX)
    worker.execute("ln", "-sfn", "/run/secrets/celery_broker_url", f"{INBOX}/tests-file-link.csv")
    worker.execute("ln", "-sfn", "/run/secrets", f"{INBOX}/tests-folder-link")
    run = api.trigger(PIPELINE, source=source)
    assert api.wait_for_run(PIPELINE, run, timeout=120) == "failed"
    (sensor,) = api.in_state(PIPELINE, run, "wait_for_data", "failed")
    assert sensor["try_number"] == 1, "a refused source is not tried again"
    assert api.in_state(PIPELINE, run, "download_data", "upstream_failed")
    log = api.log(PIPELINE, run, "wait_for_data")
    assert "RefusedSourceError" in log
    assert stack.secret("redis_password") not in log
    assert "redis://" not in log
