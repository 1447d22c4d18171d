"""The machine-learning pipeline, end to end: its figures, its artifacts, its refusals."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.stack import Stack, wait_until

PIPELINE = "ml_pipeline_dag"
CANDIDATES = 4


@pytest.fixture(scope="module")
def first_run(stack: Stack) -> tuple[str, float]:
    """A successful run, and its duration in seconds."""
    started = time.monotonic()
    run = stack.api.trigger(PIPELINE)
    assert stack.api.wait_for_run(PIPELINE, run, timeout=120) == "success"
    return run, time.monotonic() - started


def test_a_run_waits_trains_evaluates_and_registers(stack: Stack, first_run: tuple[str, float]):
    api, (run, seconds) = stack.api, first_run
    assert seconds < 60
    instances = api.task_instances(PIPELINE, run)
    states = {ti["task_id"]: ti["state"] for ti in instances}
    assert states.pop("reject_model") == "skipped"
    assert set(states.values()) == {"success"}
    trained = [ti for ti in instances if ti["task_id"] == "train_candidates.train_model"]
    assert len(trained) == CANDIDATES

    evaluated = api.xcom(PIPELINE, run, "evaluate_models")
    registered = api.xcom(PIPELINE, run, "register_model")
    assert registered["outcome"] == "registered"
    assert registered["accuracy"] == evaluated["accuracy"] >= 0.95
    assert registered["model"] in evaluated["candidates"]
    path = registered["model_path"].removeprefix("file://")
    (worker, *_) = stack.containers("worker")
    assert int(worker.execute("stat", "--format=%s", path).stdout) > 1000


def test_a_failed_quality_gate_rejects_the_model_with_a_reason(stack: Stack):
    api = stack.api
    gate = {"key": "ml_quality_gate_accuracy", "value": "0.9999"}
    api.http.post("/api/v2/variables", json=gate).raise_for_status()
    try:
        run = api.trigger(PIPELINE)
        assert api.wait_for_run(PIPELINE, run, timeout=120) == "success"
        result = api.xcom(PIPELINE, run, "report_result")
        assert result["outcome"] == "rejected"
        assert "0.9999" in result["reason"]
        assert result["model_path"] is None
        assert api.in_state(PIPELINE, run, "register_model", "skipped")
    finally:
        deleted = api.http.delete(f"/api/v2/variables/{gate['key']}")
        assert deleted.status_code == httpx.codes.NO_CONTENT


def test_a_second_run_of_a_date_repeats_no_work(stack: Stack, first_run: tuple[str, float]):
    api, (first, _) = stack.api, first_run
    api.http.post(
        f"/api/v2/dags/{PIPELINE}/dagRuns/{first}/clear", json={"dry_run": False, "only_failed": False}
    ).raise_for_status()
    assert api.wait_for_run(PIPELINE, first, timeout=120) == "success"
    assert api.xcom(PIPELINE, first, "download_data")["reused"] is True
    assert api.xcom(PIPELINE, first, "evaluate_models")["reused"] is True


def test_late_data_is_awaited_and_bad_data_fails_with_figures(
    stack: Stack,
):
    api, worker = stack.api, stack.containers("worker")[0]
    rows = "\n".join(",".join("1" for _ in range(4)) for _ in range(10))
    inbox = "/opt/airflow/artifacts/inbox"
    worker.execute("mkdir", "-p", inbox)
    worker.execute("rm", "-f", f"{inbox}/too-few.csv")
    run = api.trigger(PIPELINE, source=f"file://{inbox}/too-few.csv", label_column="label")
    wait_until(
        lambda: api.in_state(PIPELINE, run, "wait_for_data", "deferred"),
        timeout=60,
        what="the sensor has deferred",
    )
    script = f"printf 'a,b,c,label\\n{rows}\\n' > {inbox}/.part && mv {inbox}/.part {inbox}/too-few.csv"
    worker.execute("sh", "-c", script.replace("\n", "\\n"))
    assert api.wait_for_run(PIPELINE, run, timeout=120) == "failed"

    (validation,) = api.in_state(PIPELINE, run, "validate_data", "failed")
    assert validation["try_number"] == 1, "bad data is not tried again"
    log = api.log(PIPELINE, run, "validate_data")
    assert "10 samples" in log
    assert "1,000" in log
