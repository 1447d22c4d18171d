"""Each Alertmanager receives the alerts separately; an unreachable one is only logged."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.alertmanager_client import (
    MAX_BODY,
    AlertmanagersUnreachableError,
    alertmanager_urls,
    body,
    deliver,
)
from airflow_ha.monitoring.alerts import alerts_to_send
from airflow_ha.monitoring.findings import Finding
from tests.unit.monitoring.conftest import NOON

A, B = "http://a:9093", "http://b:9093"
LOG_IN = ("monitoring", "p")
MINUTE = timedelta(minutes=1)
FINDING = Finding(findings.IMPORT_ERRORS, "data", "x.py does not import", "d", "airflow-overview", {"file": "x.py"})


class Cluster:
    """Two Alertmanagers that store alerts; those in `unreachable` fail."""

    def __init__(self):
        self.held = {"a": {}, "b": {}}
        self.posts = {"a": [], "b": []}
        self.unreachable = {}
        self.now = NOON

    def __call__(self, request):
        host = request.url.host
        if host in self.unreachable:
            trouble = self.unreachable[host]
            if isinstance(trouble, int):
                return httpx.Response(trouble, text="no")
            raise trouble
        assert request.url.path == "/api/v2/alerts"
        assert request.headers["Authorization"] == httpx.BasicAuth(*LOG_IN)._auth_header
        if request.method == "GET":
            assert request.url.params["filter"] == 'source="monitoring_dag"'
            return httpx.Response(200, json=[a for a in self.held[host].values() if a["endsAt"] > self.now.isoformat()])
        alerts = json.loads(request.content)
        self.posts[host].append(alerts)
        self.held[host] |= {json.dumps(alert["labels"], sort_keys=True): alert for alert in alerts}
        return httpx.Response(200)

    def firing(self, host):
        return [a["labels"]["alertname"] for a in self.held[host].values() if a["endsAt"] > self.now.isoformat()]


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def check(cluster):
    """Run one check with some findings or none, and keep its state for the next."""
    kept = ()

    def check(*findings_now):
        nonlocal kept
        alerts = alerts_to_send(findings_now, kept, [A, B], cluster.now)
        delivery = deliver(alerts, [A, B], cluster.now, log_in=LOG_IN, transport=httpx.MockTransport(cluster))
        kept = delivery.alerts
        cluster.now += MINUTE
        return delivery

    return check


def test_both_receive_the_alert_and_its_end(cluster, check):
    assert check(FINDING).reached == 2
    assert cluster.firing("a") == cluster.firing("b") == [findings.IMPORT_ERRORS]
    assert check().alerts == ()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_a_quiet_check_sends_nothing(cluster, check):
    check()
    assert cluster.posts == {"a": [], "b": []}


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("frozen"), 503],
    ids=["gone", "frozen", "failing"],
)
def test_unreachable_one_is_logged_and_the_other_gets_the_alert(cluster, check, caplog, trouble):
    cluster.unreachable["a"] = trouble
    delivery = check(FINDING)
    delivery.require()
    assert (delivery.reached, list(delivery.unreachable)) == (1, [A])
    assert cluster.firing("b") == [findings.IMPORT_ERRORS]
    assert A in caplog.text


def test_alert_that_ended_in_an_outage_is_resolved_afterwards(cluster, check):
    check(FINDING)
    cluster.unreachable["a"] = httpx.ReadTimeout("frozen")
    check(FINDING)
    check()
    del cluster.unreachable["a"]
    assert check().alerts == ()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_restarted_empty_alertmanager_gets_firing_alerts(cluster, check):
    check(FINDING)
    cluster.unreachable["a"] = httpx.ConnectError("gone")
    check(FINDING)
    del cluster.unreachable["a"]
    cluster.held["a"].clear()
    check(FINDING)
    assert cluster.firing("a") == [findings.IMPORT_ERRORS]


def test_both_restarted_empty_get_the_end_of_sent_alerts(cluster, check):
    check(FINDING)
    cluster.unreachable = {"a": httpx.ConnectError("gone"), "b": httpx.ConnectError("gone")}
    check()
    cluster.unreachable = {}
    cluster.held = {"a": {}, "b": {}}
    check()
    for host in ("a", "b"):
        ((alert,),) = cluster.posts[host][1:]
        assert alert["endsAt"] == (NOON + MINUTE).isoformat()


def test_no_alertmanager_reached_is_an_error_and_keeps_alerts(cluster, check):
    check(FINDING)
    cluster.unreachable = {"a": httpx.ConnectError("refused"), "b": 500}
    delivery = check()
    with pytest.raises(AlertmanagersUnreachableError, match=r"a:9093: ConnectError refused; .*b:9093.*500"):
        delivery.require()
    assert len(delivery.alerts) == 1
    cluster.unreachable = {}
    check()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_active_alert_that_no_state_knows_is_resolved(cluster, check):
    labels = {"alertname": findings.WORKERS_FULL, "source": "monitoring_dag"}
    stale = {"labels": labels, "annotations": {}}
    times = {"startsAt": "2026-09-01T11:00:00.000Z", "endsAt": "2026-09-01T12:04:00.000Z"}
    cluster.held["a"]["old"] = stale | times
    check()
    (alert,) = cluster.posts["a"][0]
    assert (alert["labels"], alert["endsAt"]) == (labels, NOON.isoformat())
    assert cluster.posts["b"] == []


def test_active_alert_of_another_version_is_left_to_expire(cluster, check):
    labels = {"alertname": "Old", "source": "monitoring_dag"}
    times = {"startsAt": "2026-09-01T11:00:00.000Z", "endsAt": "2026-09-01T12:04:00.000Z"}
    cluster.held["a"]["old"] = {"labels": labels, "annotations": {}, **times}
    assert check().reached == 2
    assert cluster.posts == {"a": [], "b": []}


def test_each_alert_is_a_request_in_the_form_of_the_gateway(cluster, check):
    check(FINDING, replace(FINDING, labels={"file": "y.py"}))
    assert [len(post) for post in cluster.posts["a"]] == [1, 1]
    assert list(cluster.posts["a"][0][0]["labels"])[:2] == ["alertname", "source"]
    assert list(cluster.posts["a"][0][0]) == ["labels", "annotations", "startsAt", "endsAt"]


@pytest.mark.parametrize("text", ["x", '"' * 50_000, "\U0001f600" * 50_000])
def test_long_text_is_cut_to_what_the_gateway_accepts(text):
    content = body({"labels": {"source": "s", "alertname": "A"}, "annotations": {"summary": text, "description": text}})
    assert len(content) <= MAX_BODY
    assert json.loads(content)[0]["annotations"]["summary"][:1] == text[:1]


@pytest.mark.parametrize("answer", ["no json", '{"x": 1}', '[{"labels": {}}]', "[1]"])
def test_invalid_response_counts_as_unreachable(answer):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=answer))
    delivery = deliver(alerts_to_send([FINDING], [], [A], NOON), [A], NOON, transport=transport)
    assert delivery.reached == 0


def test_invalid_url_counts_as_unreachable():
    assert list(deliver([], ["http://[x"], NOON).unreachable) == ["http://[x"]


def test_without_alertmanagers_nothing_is_sent_and_nothing_fails():
    deliver(alerts_to_send([FINDING], [], [], NOON), [], NOON).require()


@pytest.mark.parametrize(("text", "urls"), [(None, []), ("", []), (f" {A}/, {B} ,,{A}", [A, B])])
def test_alertmanager_urls_are_comma_separated_and_distinct(text, urls):
    assert alertmanager_urls(text) == urls
