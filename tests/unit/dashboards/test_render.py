"""Dashboards are rendered from Prometheus' results, and queries without a result are reported."""

from __future__ import annotations

import re

import httpx
import pytest

from ops.clients.prometheus import Prometheus
from ops.dashboards.draw import format_value
from ops.dashboards.query_results import Series, Span, format_legend, query, substitute_variables
from ops.dashboards.render import read_boards, render, unexpectedly_empty
from ops.errors import StackError
from ops.observability.metric_contract import DASHBOARDS
from ops.project import ROOT

HOUR = Span(1_000_000, 1_003_600)


def prometheus(answer):
    """Return a client whose server responds with `answer(path, params)`, a list of results."""

    def handle(request):
        return httpx.Response(
            200, json={"status": "success", "data": {"result": answer(request.url.path, request.url.params)}}
        )

    return Prometheus("http://prometheus", transport=httpx.MockTransport(handle))


def everything(path, params):
    labels = {
        "dag_id": "d",
        "task_id": "t",
        "component": "scheduler",
        "airflow_instance": "a",
        "job": "j",
        "proxy": "p",
    }
    if path.endswith("query_range"):
        start, step = float(params["start"]), float(params["step"])
        return [{"metric": labels, "values": [[start + step * number, str(number % 3)] for number in range(20)]}]
    return [{"metric": labels, "value": [float(params["time"]), "0.5"]}]


def test_grafanas_variables_are_substituted():
    expression = substitute_variables("rate(a[$__rate_interval]) + increase(b[$__range]) + c[$__interval]", HOUR)
    assert expression == "rate(a[40s]) + increase(b[3600s]) + c[15s]"


def test_rate_interval_of_a_long_range_exceeds_one_step():
    assert substitute_variables("rate(a[$__rate_interval])", Span(0, 86400)) == "rate(a[370s])"


def test_unknown_variable_is_refused():
    with pytest.raises(StackError, match=r"\$dag"):
        substitute_variables('a{dag_id="$dag"}', HOUR)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("{{dag_id}} {{ task_id }}", "d t"), ("queued", "queued"), ("", "d t"), ("{{none}} {{dag_id}}", "d")],
)
def test_legend_is_formatted_as_in_grafana(pattern, name):
    assert format_legend(pattern, {"__name__": "a", "dag_id": "d", "task_id": "t"}) == name


def test_value_that_is_not_finite_is_dropped():
    client = prometheus(lambda *_: [{"metric": {}, "values": [[1, "NaN"], [2, "3"], [3, "+Inf"]]}])
    assert query(client, "a", "x", HOUR) == (Series("x", ((2.0, 3.0),)),)


def test_series_without_finite_values_is_dropped():
    client = prometheus(lambda *_: [{"metric": {}, "values": [[1, "NaN"]]}])
    assert query(client, "a", "", HOUR) == ()


def test_refused_query_is_an_error_with_its_expression():
    refusing = httpx.MockTransport(lambda _: httpx.Response(400, json={"status": "error", "error": "parse error"}))
    client = Prometheus("http://prometheus", transport=refusing)
    with pytest.raises(StackError, match="parse error") as error:
        query(client, "sum(", "", HOUR)
    assert "sum(" in str(error.value)


def test_unreachable_prometheus_is_an_error_with_its_address():
    def down(request):
        raise httpx.ConnectError("refused", request=request)

    client = Prometheus("http://prometheus:9090", transport=httpx.MockTransport(down))
    with pytest.raises(StackError) as error:
        query(client, "up", "", HOUR)
    assert "prometheus:9090" in str(error.value)
    assert "ops/stack status" in str(error.value)


def test_page_contains_every_dashboard(tmp_path):
    client = prometheus(everything)
    boards = render(client, ROOT / DASHBOARDS, tmp_path, HOUR)
    assert unexpectedly_empty(boards) == {}
    assert len(boards) == 5
    page = (tmp_path / "index.html").read_text()
    for board in boards:
        assert (tmp_path / f"{board.name}.png").read_bytes().startswith(b"\x89PNG")
        assert all(panel.title for panel in board.panels)
    assert len(re.findall("data:image/png;base64,", page)) == len(boards)
    assert not re.search(r"src=.(?!data:)", page)


def test_dashboards_without_data_report_missing_queries(tmp_path):
    client = prometheus(lambda *_: [])
    boards = render(client, ROOT / DASHBOARDS, tmp_path, HOUR)
    missing = unexpectedly_empty(boards)
    assert "Overview: Canary latency" in missing
    assert "Overview: Failed tries a minute, by DAG" not in missing


def test_panel_with_one_missing_query_is_reported():
    def all_but_pg_up(path, params):
        return [] if "pg_up" in params["query"] else everything(path, params)

    client = prometheus(all_but_pg_up)
    boards = read_boards(ROOT / DASHBOARDS, client, HOUR)
    assert unexpectedly_empty(boards) == {"Data tier: Up": ("pg_up",)}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (1234567, "short", "1.2M"),
        (0.25, "s", "250 ms"),
        (42, "s", "42 s"),
        (600, "s", "10.0 min"),
        (7200, "s", "2.0 h"),
        (1, "percentunit", "100%"),
        (0.987, "percentunit", "98.7%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (12, "cpm", "12/min"),
    ],
)
def test_values_have_readable_units(value, unit, text):
    assert format_value(value, unit) == text
