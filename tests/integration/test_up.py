"""`./ops/stack up` ends with a whole stack in which the ML pipeline has run to success."""

from __future__ import annotations

import httpx
import pytest

from airflow_ha.patches import registry
from tests.stack import Stack, wait_until

PIPELINE = "ml_pipeline_dag"
STATUS_KEYS = {
    *("services", "urls", "login", "images", "dags", "targets", "patches", "data", "ready"),
    *("secrets", "certificates"),
}
INSTANCE_KEYS = {"id", "state", "health", "suspended_tasks", "refused_addresses", "refused_users", "waits_for"}


def test_status_shows_every_service_healthy(healthy_stack: Stack, pytestconfig: pytest.Config):
    # Docker may report a restarted container later than the stack's own probe.
    status = wait_until(
        lambda: (now := healthy_stack.status())["ready"] and now, timeout=60, what="every service is healthy"
    )
    assert set(status) == STATUS_KEYS
    services = {service["name"]: service for service in status["services"]}
    assert services["worker"]["wanted"] == services["worker"]["healthy"] == 2
    assert services["scheduler"]["healthy"] == services["api-server"]["healthy"] == 2
    assert services["execution-api"]["healthy"] == 2
    assert all(set(i) == INSTANCE_KEYS for service in services.values() for i in service["instances"])
    assert status["urls"].keys() >= {"airflow", "flower", "prometheus"}
    assert {image["origin"] for image in status["images"].values()} <= {"official", "airgap"}
    assert status["login"]["user"] == "admin"
    assert status["dags"] == {"import_errors": []}
    off = registry.switched_off(pytestconfig.getoption("--patches"), "")
    assert {(patch["patch"], patch["state"]) for patch in status["patches"]} == {(name, "off") for name in off}


def test_up_ran_the_pipeline_with_95_percent_accuracy(stack: Stack):
    runs = stack.api.get(f"/dags/{PIPELINE}/dagRuns", state="success", order_by="start_date")["dag_runs"]
    assert runs
    result = stack.api.xcom(PIPELINE, runs[0]["dag_run_id"], "report_result")
    assert result["outcome"] == "registered"
    assert result["accuracy"] >= 0.95


def test_a_second_up_changes_nothing(healthy_stack: Stack):
    def containers() -> set[str]:
        return {container.id for container in healthy_stack.containers()}

    def runs() -> int:
        return int(healthy_stack.api.get(f"/dags/{PIPELINE}/dagRuns")["total_entries"])

    before, runs_before = containers(), runs()
    healthy_stack.command("up")
    assert containers() == before
    assert runs() == runs_before


def test_the_canary_measures_the_whole_path_every_minute(stack: Stack):
    def successes() -> list[dict[str, object]]:
        runs = stack.api.get("/dags/canary_dag/dagRuns", state="success", order_by="-start_date")["dag_runs"]
        return [run for run in runs if run["run_type"] == "scheduled"]

    newest = wait_until(successes, timeout=90, what="a scheduled canary run has succeeded")[0]
    seconds = stack.api.xcom("canary_dag", str(newest["dag_run_id"]), "measure_latency")
    assert 0 < float(seconds) < 60


def test_flower_shows_both_workers_to_who_has_the_password(stack: Stack):
    assert stack.flower.get("/api/workers", auth=None).status_code == httpx.codes.UNAUTHORIZED
    workers = wait_until(
        lambda: stack.flower.get("/api/workers", params={"refresh": True}).raise_for_status().json(),
        timeout=60,
        what="Flower's workers",
    )
    hosts = {f"celery@{container.id[:12]}" for container in stack.containers("worker")}
    assert hosts <= set(workers)
