"""`./ops/stack up` ends with a whole stack in which the ML pipeline has run to success."""

from __future__ import annotations

import time

import httpx

from tests.integration.stack import Stack, wait_until

PIPELINE = "ml_pipeline_dag"
STATUS_KEYS = {"services", "urls", "login", "images", "dags", "targets", "ready"}


def test_every_service_is_healthy_and_status_says_so(healthy_stack: Stack):
    status = healthy_stack.status()
    assert set(status) == STATUS_KEYS
    services = {service["name"]: service for service in status["services"]}
    assert services["worker"]["wanted"] == services["worker"]["healthy"] == 2
    assert services["scheduler"]["healthy"] == services["api-server"]["healthy"] == 2
    assert services["execution-api"]["healthy"] == 2
    assert all(set(i) == {"id", "state", "health"} for service in services.values() for i in service["instances"])
    assert status["urls"].keys() >= {"airflow", "flower", "prometheus"}
    assert {image["origin"] for image in status["images"].values()} <= {"official", "airgap"}
    assert status["login"]["user"] == "admin"
    assert status["dags"] == {"import_errors": []}


def test_up_has_run_the_ml_pipeline_to_success_with_an_accuracy_of_95_percent(stack: Stack):
    runs = stack.api.get(f"/dags/{PIPELINE}/dagRuns", state="success", order_by="start_date")["dag_runs"]
    assert runs
    result = stack.api.xcom(PIPELINE, runs[0]["dag_run_id"], "report_result")
    assert result["outcome"] == "registered"
    assert result["accuracy"] >= 0.95


def test_a_second_up_changes_nothing_and_takes_under_20_seconds(healthy_stack: Stack):
    def containers() -> set[str]:
        return {container.id for container in healthy_stack.containers()}

    def runs() -> int:
        return int(healthy_stack.api.get(f"/dags/{PIPELINE}/dagRuns")["total_entries"])

    before, runs_before = containers(), runs()
    started = time.monotonic()
    healthy_stack.command("up")
    assert time.monotonic() - started < 20
    assert containers() == before
    assert runs() == runs_before


def test_the_pipeline_takes_under_a_minute_once_warm_and_a_second_run_of_its_date_does_no_work_twice(
    stack: Stack,
):
    api = stack.api
    started = time.monotonic()
    first = api.trigger(PIPELINE)
    assert api.wait_for_run(PIPELINE, first, timeout=120) == "success"
    assert time.monotonic() - started < 60

    api.http.post(
        f"/api/v2/dags/{PIPELINE}/dagRuns/{first}/clear", json={"dry_run": False, "only_failed": False}
    ).raise_for_status()
    assert api.wait_for_run(PIPELINE, first, timeout=120) == "success"
    assert api.xcom(PIPELINE, first, "download_data")["reused"] is True
    assert api.xcom(PIPELINE, first, "evaluate_models")["reused"] is True


def test_data_that_is_not_there_yet_is_waited_for_in_the_triggerer_and_bad_data_fails_with_its_figures(
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
    log = api.http.get(
        f"/api/v2/dags/{PIPELINE}/dagRuns/{run}/taskInstances/validate_data/logs/1",
        params={"full_content": True},
    )
    assert "10 samples" in log.text
    assert "1,000" in log.text


def test_the_canary_measures_the_whole_path_every_minute(stack: Stack):
    def successes() -> list[dict[str, object]]:
        runs = stack.api.get("/dags/canary_dag/dagRuns", state="success", order_by="-start_date")["dag_runs"]
        return [run for run in runs if run["run_type"] == "scheduled"]

    newest = wait_until(successes, timeout=90, what="a scheduled canary run has succeeded")[0]
    seconds = stack.api.xcom("canary_dag", str(newest["dag_run_id"]), "measure_latency")
    assert 0 < float(seconds) < 60


def test_flower_shows_both_workers_to_who_has_the_password(stack: Stack):
    url = f"{stack.flower_url}/api/workers"
    assert httpx.get(url).status_code == httpx.codes.UNAUTHORIZED
    client = httpx.Client(auth=("admin", stack.secret("flower_password")))
    workers = wait_until(
        lambda: client.get(url, params={"refresh": True}).raise_for_status().json(),
        timeout=60,
        what="Flower's workers",
    )
    hosts = {f"celery@{container.id[:12]}" for container in stack.containers("worker")}
    assert hosts <= set(workers)
