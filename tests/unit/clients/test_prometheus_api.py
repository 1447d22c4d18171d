"""The client of Prometheus' API: plain values, plain errors."""

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


def test_the_one_number_of_an_expression():
    assert prometheus(vector(3)).value("x") == 3.0


def test_an_expression_that_returns_nothing_has_no_number():
    assert prometheus(vector()).value("x") is None


def test_several_series_are_not_one_number():
    with pytest.raises(StackError, match="2 series, not one"):
        prometheus(vector(1, 2)).value("x")


def test_a_rule_that_fails_is_told_apart_with_its_reason():
    """An excerpt of what Prometheus answers; a rule that is well has no lastError."""
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


def test_a_refused_query_is_said_with_its_reason():
    with pytest.raises(StackError, match="parse error"):
        prometheus({"status": "error", "error": "parse error"}, status=400).query("(")


def test_a_prometheus_that_does_not_answer_is_said_with_what_to_do():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(StackError, match="cannot be reached: refused") as error:
        Prometheus("http://prometheus", transport=httpx.MockTransport(refuse)).targets()
    assert "observability" in error.value.hint


def test_targets_are_told_by_job_with_their_error():
    down = {"labels": {"job": "redis", "instance": "redis:9121"}, "health": "down", "lastError": "refused"}
    up = {"labels": {"job": "gateway", "instance": "gateway:1"}, "health": "up", "lastError": ""}
    answer = {"status": "success", "data": {"activeTargets": [down, up]}}
    assert [(t["job"], t["health"], t["error"]) for t in prometheus(answer).targets()] == [
        ("gateway", "up", ""),
        ("redis", "down", "refused"),
    ]
