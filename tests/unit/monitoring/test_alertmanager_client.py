"""Both Alertmanagers are told, each by itself; one that is away costs nothing but a line."""

from __future__ import annotations

import json
from datetime import timedelta

import httpx
import pytest

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.alertmanager_client import AlertmanagersAwayError, addresses, deliver
from airflow_ha.monitoring.alerts import to_tell
from airflow_ha.monitoring.findings import Finding
from tests.unit.monitoring.conftest import NOON

A, B = "http://a:9093", "http://b:9093"
MINUTE = timedelta(minutes=1)
FINDING = Finding(findings.IMPORT_ERRORS, "data", "x.py does not import", "d", "airflow-overview", {"file": "x.py"})


class Cluster:
    """Two Alertmanagers that keep what they are sent; those in `away` do not answer."""

    def __init__(self):
        self.held = {"a": {}, "b": {}}
        self.posts = {"a": [], "b": []}
        self.away = {}
        self.now = NOON

    def __call__(self, request):
        host = request.url.host
        if host in self.away:
            trouble = self.away[host]
            if isinstance(trouble, int):
                return httpx.Response(trouble, text="no")
            raise trouble
        assert request.url.path == "/api/v2/alerts"
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
    """One check that finds something or nothing, and remembers."""
    told = ()

    def check(*found):
        nonlocal told
        told_now = to_tell(found, told, [A, B], cluster.now)
        delivery = deliver(told_now, [A, B], cluster.now, httpx.MockTransport(cluster))
        told = delivery.told
        cluster.now += MINUTE
        return delivery

    return check


def test_both_are_told_and_told_when_it_is_over(cluster, check):
    assert check(FINDING).reached == 2
    assert cluster.firing("a") == cluster.firing("b") == [findings.IMPORT_ERRORS]
    assert check().told == ()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_a_quiet_check_sends_nothing(cluster, check):
    check()
    assert cluster.posts == {"a": [], "b": []}


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("frozen"), 503],
    ids=["gone", "frozen", "failing"],
)
def test_one_that_is_away_is_said_and_the_other_is_told(cluster, check, caplog, trouble):
    cluster.away["a"] = trouble
    delivery = check(FINDING)
    delivery.require()
    assert (delivery.reached, list(delivery.away)) == (1, [A])
    assert cluster.firing("b") == [findings.IMPORT_ERRORS]
    assert f"the Alertmanager {A} was not told" in caplog.text


def test_one_that_was_away_while_it_began_and_ended_ends_well(cluster, check):
    check(FINDING)
    cluster.away["a"] = httpx.ReadTimeout("frozen")
    check(FINDING)
    check()
    del cluster.away["a"]
    assert check().told == ()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_one_that_comes_back_empty_is_told_what_still_lasts(cluster, check):
    check(FINDING)
    cluster.away["a"] = httpx.ConnectError("gone")
    check(FINDING)
    del cluster.away["a"]
    cluster.held["a"].clear()
    check(FINDING)
    assert cluster.firing("a") == [findings.IMPORT_ERRORS]


def test_both_that_come_back_empty_are_told_the_end_of_what_they_had_sent(cluster, check):
    check(FINDING)
    cluster.away = {"a": httpx.ConnectError("gone"), "b": httpx.ConnectError("gone")}
    check()
    cluster.away = {}
    cluster.held = {"a": {}, "b": {}}
    check()
    for host in ("a", "b"):
        ((alert,),) = cluster.posts[host][1:]
        assert alert["endsAt"] == (NOON + MINUTE).isoformat()


def test_none_is_refused_with_each_ones_reason_and_nothing_is_forgotten(cluster, check):
    check(FINDING)
    cluster.away = {"a": httpx.ConnectError("refused"), "b": 500}
    delivery = check()
    with pytest.raises(
        AlertmanagersAwayError, match=r"no Alertmanager took .*a:9093: ConnectError refused; .*b:9093.*500"
    ):
        delivery.require()
    assert len(delivery.told) == 1
    cluster.away = {}
    check()
    assert cluster.firing("a") == cluster.firing("b") == []


def test_what_they_hold_and_nobody_remembers_is_ended(cluster, check):
    stale = {"labels": {"alertname": "Old", "source": "monitoring_dag"}, "annotations": {}}
    times = {"startsAt": "2026-09-01T11:00:00.000Z", "endsAt": "2026-09-01T12:04:00.000Z"}
    cluster.held["a"]["old"] = stale | times
    check()
    (alert,) = cluster.posts["a"][0]
    assert (alert["labels"]["alertname"], alert["endsAt"]) == ("Old", NOON.isoformat())
    assert cluster.posts["b"] == []


@pytest.mark.parametrize("answer", ["no json", '{"x": 1}', '[{"labels": {}}]', "[1]"])
def test_one_that_answers_nonsense_counts_as_away(answer):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=answer))
    delivery = deliver(to_tell([FINDING], [], [A], NOON), [A], NOON, transport)
    assert delivery.reached == 0


def test_a_url_that_is_none_counts_as_away():
    assert list(deliver([], ["http://[x"], NOON).away) == ["http://[x"]


def test_without_alertmanagers_nothing_is_sent_and_nothing_is_wrong():
    deliver(to_tell([FINDING], [], [], NOON), [], NOON).require()


@pytest.mark.parametrize(("text", "found"), [(None, []), ("", []), (f" {A}/, {B} ,,{A}", [A, B])])
def test_addresses_are_between_commas_each_once(text, found):
    assert addresses(text) == found
