"""Drawing the dashboards: what is asked of Prometheus, what is made of its answers, and what is reported as missing."""

from __future__ import annotations

import re

import httpx
import pytest

from ops.clients.prometheus import Prometheus
from ops.dashboards.draw import formatted
from ops.dashboards.query_results import Series, Span, legend, query, with_times
from ops.dashboards.render import read_boards, render, wrongly_empty
from ops.errors import StackError
from ops.observability.metric_contract import DASHBOARDS
from ops.project import ROOT

HOUR = Span(1_000_000, 1_003_600)


def prometheus(answer):
    """A Prometheus that answers each query with `answer(path, query)`: a list of results."""

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


def test_the_variables_of_grafana_become_times():
    asked = with_times("rate(a[$__rate_interval]) + increase(b[$__range]) + c[$__interval]", HOUR)
    assert asked == "rate(a[40s]) + increase(b[3600s]) + c[15s]"


def test_a_rate_over_a_long_time_looks_at_more_than_one_step():
    assert with_times("rate(a[$__rate_interval])", Span(0, 86400)) == "rate(a[370s])"


def test_a_variable_that_nobody_fills_in_is_refused():
    with pytest.raises(StackError, match=r"\$dag"):
        with_times('a{dag_id="$dag"}', HOUR)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("{{dag_id}} {{ task_id }}", "d t"), ("queued", "queued"), ("", "d t"), ("{{none}} {{dag_id}}", "d")],
)
def test_a_series_is_named_as_grafana_names_it(pattern, name):
    assert legend(pattern, {"__name__": "a", "dag_id": "d", "task_id": "t"}) == name


def test_a_value_that_is_no_number_is_left_out():
    client = prometheus(lambda *_: [{"metric": {}, "values": [[1, "NaN"], [2, "3"], [3, "+Inf"]]}])
    assert query(client, "a", "x", HOUR) == (Series("x", ((2.0, 3.0),)),)


def test_a_series_of_no_numbers_is_no_answer():
    client = prometheus(lambda *_: [{"metric": {}, "values": [[1, "NaN"]]}])
    assert query(client, "a", "", HOUR) == ()


def test_a_refused_query_is_told_with_the_expression():
    refusing = httpx.MockTransport(lambda _: httpx.Response(400, json={"status": "error", "error": "parse error"}))
    client = Prometheus("http://prometheus", transport=refusing)
    with pytest.raises(StackError, match="parse error") as told:
        query(client, "sum(", "", HOUR)
    assert "sum(" in str(told.value)


def test_a_prometheus_that_is_down_is_told_with_its_address():
    def down(request):
        raise httpx.ConnectError("refused", request=request)

    client = Prometheus("http://prometheus:9090", transport=httpx.MockTransport(down))
    with pytest.raises(StackError) as told:
        query(client, "up", "", HOUR)
    assert "prometheus:9090" in str(told.value)
    assert "ops/stack status" in str(told.value)


def test_every_dashboard_is_drawn_and_one_page_holds_them_all(tmp_path):
    client = prometheus(everything)
    boards = render(client, ROOT / DASHBOARDS, tmp_path, HOUR)
    assert wrongly_empty(boards) == {}
    assert len(boards) == 5
    page = (tmp_path / "index.html").read_text()
    for board in boards:
        assert (tmp_path / f"{board.name}.png").read_bytes().startswith(b"\x89PNG")
        assert all(panel.title for panel in board.panels)
    assert len(re.findall("data:image/png;base64,", page)) == len(boards)
    assert not re.search(r"src=.(?!data:)", page)


def test_dashboards_are_drawn_without_any_data(tmp_path):
    client = prometheus(lambda *_: [])
    boards = render(client, ROOT / DASHBOARDS, tmp_path, HOUR)
    missing = wrongly_empty(boards)
    assert "Overview: Canary latency" in missing
    assert "Overview: Failed attempts a minute, by DAG" not in missing


def test_a_panel_of_which_one_query_has_no_answer_is_told():
    def half(path, params):
        return [] if "pg_up" in params["query"] else everything(path, params)

    client = prometheus(half)
    boards = read_boards(ROOT / DASHBOARDS, client, HOUR)
    assert wrongly_empty(boards) == {"Data tier: Up": ("pg_up",)}


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
def test_values_are_written_as_people_read_them(value, unit, text):
    assert formatted(value, unit) == text
