"""The client of Prometheus' API: parsed values and errors."""

from __future__ import annotations

import httpx
import pytest

from ops.clients.prometheus import Prometheus
from ops.errors import StackError


def prometheus(answer, status=200) -> Prometheus:
    return Prometheus("http://prometheus", transport=httpx.MockTransport(lambda _: httpx.Response(status, json=answer)))


def vector(*values: float) -> dict:
    series = [{"metric": {"n": str(number)}, "value": [0, str(value)]} for number, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


def test_one_series_has_its_value():
    assert prometheus(vector(3)).value("x") == 3.0


def test_no_series_has_no_value():
    assert prometheus(vector()).value("x") is None


def test_several_series_are_an_error():
    with pytest.raises(StackError, match="2 series"):
        prometheus(vector(1, 2)).value("x")


def test_a_failing_rule_has_its_error():
    """A healthy rule has no lastError in the response."""
    rules = [
        {"type": "recording", "name": "up:sum", "query": "sum(up)", "health": "ok"},
        {"type": "alerting", "name": "Late", "query": "a / on(x) b", "health": "err", "lastError": "many-to-many"},
    ]
    answer = {
        "status": "success",
        "data": {"groups": [{"name": "one", "rules": rules}, {"name": "empty", "rules": []}]},
    }
    assert prometheus(answer).rules() == [
        {"name": "up:sum", "health": "ok", "error": ""},
        {"name": "Late", "health": "err", "error": "many-to-many"},
    ]


def test_a_refused_query_is_an_error_with_its_reason():
    with pytest.raises(StackError, match="parse error"):
        prometheus({"status": "error", "error": "parse error"}, status=400).query("(")


def test_an_unreachable_prometheus_is_an_error():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(StackError, match="cannot reach Prometheus: refused") as error:
        Prometheus("http://prometheus", transport=httpx.MockTransport(refuse)).targets()
    assert "observability" in error.value.hint


def test_targets_are_sorted_by_job_and_have_their_error():
    down = {"labels": {"job": "redis", "instance": "redis:9121"}, "health": "down", "lastError": "refused"}
    up = {"labels": {"job": "gateway", "instance": "gateway:1"}, "health": "up", "lastError": ""}
    answer = {"status": "success", "data": {"activeTargets": [down, up]}}
    assert [(t["job"], t["health"], t["error"]) for t in prometheus(answer).targets()] == [
        ("gateway", "up", ""),
        ("redis", "down", "refused"),
    ]
