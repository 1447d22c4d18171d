"""The account that monitoring uses: it reads what it needs, changes nothing, and monitoring works with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.stack import Airflow, Stack, wait_until


@pytest.fixture(scope="module")
def monitoring(stack: Stack) -> Airflow:
    """Log in to Airflow with the monitoring account."""
    return stack.log_in("monitoring", stack.secret("airflow_monitoring_password"))


@pytest.mark.parametrize(
    "path", ["/dags", "/dags/~/dagRuns", "/dags/~/dagRuns/~/taskInstances", "/jobs", "/pools", "/importErrors"]
)
def test_it_reads_what_the_checks_need(monitoring: Airflow, path: str):
    assert monitoring.get(path, limit=1)["total_entries"] >= 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/dags/canary_dag/dagRuns", {"logical_date": None}),
        ("PATCH", "/dags/canary_dag", {"is_paused": True}),
        ("DELETE", "/dags/canary_dag", None),
        ("PATCH", "/pools/default_pool", {"slots": 1}),
        ("POST", "/variables", {"key": "k", "value": "v"}),
        ("GET", "/variables", None),
        ("GET", "/connections", None),
        ("GET", "/config", None),
    ],
)
def test_it_is_refused_everything_else(monitoring: Airflow, method: str, path: str, body: object):
    assert monitoring.http.request(method, f"/api/v2{path}", json=body).status_code == httpx.codes.FORBIDDEN


def test_the_monitoring_dag_succeeds_with_one_log_in(stack: Stack):
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()

    def ended() -> list[dict[str, str]]:
        runs = stack.api.get("/dags/monitoring_dag/dagRuns", end_date_gte=since, order_by="-end_date", limit=20)
        return [run for run in runs["dag_runs"] if run["state"] in ("success", "failed")]

    wait_until(lambda: len(ended()) >= 2, timeout=180, what="the monitoring DAG ran twice")
    latest = ended()[0]
    log = stack.api.log("monitoring_dag", latest["dag_run_id"], "check")
    assert latest["state"] == "success", log
    assert "runs ended=" in log
    assert "alertmanagers=2 of 2" in log
