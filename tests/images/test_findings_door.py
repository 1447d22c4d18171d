"""The gateway's door to the Alertmanagers for tasks: findings of the monitoring DAG, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.alertmanager_client import MAX_BODY, body, deliver
from airflow_ha.monitoring.alerts import alerts_to_send, api_alert
from airflow_ha.monitoring.findings import Finding
from tests.images.doors import ALERTMANAGER_PASSWORD, FINDINGS, Gateway, gateway_with

PATHS = [f"/alertmanager-{number}/api/v2/alerts" for number in (1, 2)]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def gateway(images) -> Iterator[Gateway]:
    with gateway_with(images, {}) as running:
        yield running


@pytest.fixture
def door(gateway) -> Iterator[httpx.Client]:
    with gateway.client(8081) as http:
        http.auth = FINDINGS
        yield http


def alert(finding: Finding) -> dict:
    (sent,) = alerts_to_send([finding], [], [], NOW)
    return api_alert(sent, NOW)


def finding(name: str = findings.IMPORT_ERRORS, text: str = "d", **labels: str) -> Finding:
    return Finding(name, "data", "s", text, "airflow-overview", labels)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "each",
    [
        *(finding(name, dag_id="d") for name in findings.ALERT_NAMES),
        finding(file='a "b" \\ } \u00fc \U0001f600.py'),
        finding(text='"},{"labels":{"alertname":"PostgresDown"}}' * 300),
        finding(text="\U0001f600\n" * 9000),
    ],
)
def test_each_finding_reaches_the_alertmanager_with_its_password(door, path, each):
    content = body(alert(each))
    assert len(content) <= MAX_BODY
    answer = door.post(path, content=content, headers={"Content-Type": "application/json"})
    expected = base64.b64encode(f"admin:{ALERTMANAGER_PASSWORD}".encode()).decode()
    assert answer.status_code == 200
    assert answer.json()["authorization"] == f"Basic {expected}"
    assert answer.json()["body"].encode() == content
    assert answer.json()["request"].split("?")[0] == "POST /api/v2/alerts"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", ["", "?filter=alertname%3D%22PostgresDown%22", "?silenced=true&active=true"])
def test_only_findings_can_be_read(door, path, query):
    asked = door.get(path + query).json()["request"]
    assert asked == "GET /api/v2/alerts?filter=source%3D%22monitoring_dag%22"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"/alertmanager-1{path}") for path in ("/", "/metrics", "/api/v2/status", "/api/v2/silences")),
        *(("POST", f"/alertmanager-1{path}") for path in ("/api/v2/silences", "/-/reload", "/api/v2/alerts/")),
        *(("POST", path) for path in ("/alertmanager-3/api/v2/alerts", "/api/v2/alerts", "//alertmanager-1/-/reload")),
        ("POST", "/alertmanager-1/api/v2/alerts/../silences"),
        ("POST", "/alertmanager-1/api/v2/%61lerts"),
        ("DELETE", "/alertmanager-1/api/v2/silence/x"),
    ],
)
def test_everything_else_of_the_alertmanager_is_closed(door, method, path):
    assert door.request(method, path).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(door, method):
    assert door.request(method, PATHS[0]).status_code == 405


@pytest.mark.parametrize("log_in", [None, ("monitoring", "wrong"), ("admin", ALERTMANAGER_PASSWORD)])
def test_the_door_needs_the_password_of_the_dag(door, log_in):
    door.auth = log_in
    assert door.get(PATHS[0]).status_code == 401
    assert door.post(PATHS[0], content=body(alert(finding()))).status_code == 401


def changed(**parts: object) -> dict:
    return {**alert(finding()), **parts}


ROOT_CAUSE = {"alertname": "PostgresDown", "source": "monitoring_dag", "severity": "page"}
OTHER = [
    json.dumps([changed(labels=ROOT_CAUSE)], separators=(",", ":")),
    json.dumps([changed(labels={"alertname": findings.IMPORT_ERRORS, "source": "x"})], separators=(",", ":")),
    json.dumps([changed(labels={"alertname": findings.IMPORT_ERRORS})], separators=(",", ":")),
    json.dumps([alert(finding()), changed(labels=ROOT_CAUSE)], separators=(",", ":")),
    body(alert(finding())).decode().replace('"severity"', '"alertname":"PostgresDown","severity"'),
    body(alert(finding())).decode().replace('"severity"', '"\\u0061lertname":"PostgresDown","severity"'),
    body(alert(finding())).decode().replace('"severity"', '"source":"","severity"'),
    body(alert(finding())).decode().replace('"startsAt"', '"Labels":{"alertname":"PostgresDown"},"startsAt"'),
    body(alert(finding())).decode().replace("}]", ',"labels":{"alertname":"PostgresDown"}}]'),
    body(alert(finding())).decode() + body(changed(labels=ROOT_CAUSE)).decode(),
    body(alert(finding())).decode() + " " * MAX_BODY,
    "[]",
    "",
]


@pytest.mark.parametrize("content", OTHER)
def test_an_alert_that_is_no_finding_is_refused(door, content):
    answer = door.post(PATHS[0], content=content.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_body_of_another_encoding_is_refused(door):
    content = body(alert(finding())).decode().encode("utf-16")
    assert door.post(PATHS[0], content=content).status_code == 400


def test_the_monitoring_dag_delivers_through_the_door(gateway, monkeypatch):
    base = str(gateway.client(8081).base_url)
    monkeypatch.setattr("airflow_ha.monitoring.alertmanager_client.active_alerts", lambda *_: [])
    urls = [f"{base}/alertmanager-{number}" for number in (1, 2)]
    alerts = alerts_to_send([finding(), finding(findings.WORKERS_FULL)], [], urls, NOW)
    delivery = deliver(alerts, urls, NOW, log_in=FINDINGS)
    assert (delivery.reached, delivery.unreachable) == (2, {})
