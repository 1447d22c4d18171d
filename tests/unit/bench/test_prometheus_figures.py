"""Figures from Prometheus are returned if it runs, and their expressions use existing metrics."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

from ops.bench import prometheus_figures
from ops.bench.prometheus_figures import CONNECTIONS, EXPRESSIONS, SERIES
from ops.observability import metric_contract
from ops.project import ROOT

SETTINGS = {"COMPOSE_PROFILES": "data,observability"}


def test_figure_without_a_value_is_dropped(monkeypatch):
    values = {EXPRESSIONS[CONNECTIONS]: 41.0}

    server = SimpleNamespace(value=values.get)
    monkeypatch.setattr(prometheus_figures.prometheus, "connect", lambda settings: server)
    assert prometheus_figures.query_figures(SETTINGS) == {CONNECTIONS: 41.0}
    assert SERIES in EXPRESSIONS


def test_no_prometheus_gives_no_figures():
    assert prometheus_figures.query_figures({"COMPOSE_PROFILES": "data"}) == {}


def test_expressions_use_existing_metrics():
    known = metric_contract.known_metrics(ROOT, Path(find_spec("airflow").origin).parent)
    assert {
        name: unknown for name, text in EXPRESSIONS.items() if (unknown := metric_contract.unknown_in(text, known))
    } == {}
