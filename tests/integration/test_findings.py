"""Notifications about DAGs that cannot run, many DAGs that fail at once, and containers out of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from airflow_ha.monitoring.checks import SCHEDULED_GRACE
from ops.clients import slack_stub
from tests.stack import Stack, wait_until

FINDING_SECONDS = 120.0
MONITORING = "/api/v2/dags/monitoring_dag"
FAILING = [f"one_cause_{number}" for number in range(6)]
POOLS = {"tests_narrow": 2, "tests_closed": 0}


@pytest.fixture
def findings(healthy_stack: Stack) -> Iterator[Stack]:
    """Create two pools, and count a single failed run; pause the checks, so that the next one finds all at once.

    A check that saw only some DAGs fail would send these, and the others two minutes later (`group_interval`).
    """
    http = healthy_stack.api.http
    for name, slots in POOLS.items():
        http.post("/api/v2/pools", json={"name": name, "slots": slots}).raise_for_status()
    http.patch(MONITORING, json={"is_paused": True}).raise_for_status()
    http.post("/api/v2/variables", json={"key": "monitoring_min_ended_runs", "value": "1"}).raise_for_status()
    yield healthy_stack
    http.patch(MONITORING, json={"is_paused": False}).raise_for_status()
    http.delete("/api/v2/variables/monitoring_min_ended_runs")
    for dag_id in FAILING:
        for run in healthy_stack.api.get(f"/dags/{dag_id}/dagRuns", limit=100)["dag_runs"]:
            http.delete(f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}")
    for name in (*POOLS, "tests_missing"):
        http.delete(f"/api/v2/pools/{name}")


def messages_about(stack: Stack, since: float, alert: str, *names: str) -> list[slack_stub.Message]:
    """Return the firing messages about an alert that contain all the names."""
    messages = stack.slack.received(since, alert, firing=True)
    return [message for message in messages if all(name in message.title + message.text for name in names)]


def active(stack: Stack, alert: str, dag_id: str) -> int:
    """Return how many alerts of that name a DAG has."""
    labels = [each["labels"] for each in stack.alertmanagers[0].alerts()]
    return len([each for each in labels if each["alertname"] == alert and each.get("dag_id") == dag_id])


def scheduled(stack: Stack, dag_id: str, run: str, task_id: str, *, for_seconds: float) -> list[float]:
    """Return when the instances of a task were scheduled that have been so for this long, in Unix seconds."""
    instances = stack.api.in_state(dag_id, run, task_id, "scheduled")
    moments = [datetime.fromisoformat(ti["scheduled_when"]).timestamp() for ti in instances if ti["scheduled_when"]]
    return [moment for moment in moments if moment < time.time() - for_seconds]


def test_findings_of_one_kind_are_one_message_with_the_reasons(findings: Stack):
    """Cause all findings before one check, and trigger this check."""
    stack, api, dag_id = findings, findings.api, "pools_that_never_take"
    since = time.time()
    runs = {name: api.trigger(name) for name in (*FAILING, dag_id)}
    (triggerer, *_) = stack.containers("triggerer")
    # The OOM killer chooses this process, not another one of the container.
    hog = "open('/proc/self/oom_score_adj', 'w').write('1000'); bytearray(4 << 30)"
    assert triggerer.execute("python", "-c", hog, check=False).returncode == 137
    for name in FAILING:
        assert api.wait_for_run(name, runs[name], timeout=60) == "failed"
    wait_until(
        lambda: len(scheduled(stack, dag_id, runs[dag_id], "missing", for_seconds=SCHEDULED_GRACE)) == 40,
        timeout=60,
        what=f"the tasks have waited for their pools for {SCHEDULED_GRACE:.0f} s",
    )
    stuck = time.time()
    api.trigger("monitoring_dag")

    reasons = ["tests_missing does not exist", "50 slots", "tests_narrow has 2", "tests_closed has 0 slots", "(40)"]
    wait_until(
        lambda: messages_about(stack, since, "AirflowTasksUnschedulable", *reasons),
        timeout=FINDING_SECONDS,
        what="one message has the three pools, each with its reason",
    )
    print(f"received {time.time() - stuck:.0f} s after the check was started")
    assert active(stack, "AirflowTasksUnschedulable", dag_id) == 3, "one alert a DAG and pool"
    wait_until(
        lambda: messages_about(stack, since, "AirflowDagRunsFailing", *FAILING),
        timeout=2 * FINDING_SECONDS,  # with the group's update, if an earlier failure has begun the group
        what="one message names every failing DAG",
    )
    assert len(messages_about(stack, since, "AirflowDagRunsFailing", FAILING[0])) <= 2
    wait_until(
        lambda: messages_about(stack, since, "ContainerOutOfMemory", "triggerer", triggerer.id[:12]),
        timeout=FINDING_SECONDS,
        what="the container that lost a process for memory is named",
    )

    api.http.post("/api/v2/pools", json={"name": "tests_missing", "slots": 40}).raise_for_status()
    for name in POOLS:
        body = {"pool": name, "slots": 50, "include_deferred": False}
        api.http.patch(f"/api/v2/pools/{name}", params={"update_mask": "slots"}, json=body).raise_for_status()
    assert api.wait_for_run(dag_id, runs[dag_id], timeout=90) == "success"
    api.trigger("monitoring_dag")
    wait_until(
        lambda: not active(stack, "AirflowTasksUnschedulable", dag_id),
        timeout=FINDING_SECONDS,
        what="the alerts have resolved",
    )


def test_the_gauge_of_a_dag_that_is_gone_is_no_longer_late(healthy_stack: Stack):
    """Check that Prometheus has no gauge of the monitoring DAG that a collector keeps for a day."""
    kept = healthy_stack.prometheus.query('{__name__=~"otel_airflow_ha_(dag|monitoring)_.+", service_name=""}')
    assert kept == []
    assert healthy_stack.prometheus.query("otel_airflow_ha_dag_overdue_seconds")
