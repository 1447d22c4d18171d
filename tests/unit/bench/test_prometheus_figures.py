"""Figures that only Prometheus has are there where it runs, and are of metrics that exist."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ops.bench import prometheus_figures
from ops.bench.prometheus_figures import CONNECTIONS, EXPRESSIONS, SERIES
from ops.observability import metric_contract
from ops.project import ROOT

SETTINGS = {"COMPOSE_PROFILES": "data,observability", "BIND_ADDRESS": "127.0.0.1", "PROMETHEUS_PORT": "9090"}


def test_what_has_no_value_yet_is_left_out(monkeypatch):
    values = {EXPRESSIONS[CONNECTIONS]: 41.0}

    class Prometheus:
        def __init__(self, url):
            assert url == "http://127.0.0.1:9090"

        value = staticmethod(values.get)

    monkeypatch.setattr(prometheus_figures, "Prometheus", Prometheus)
    assert prometheus_figures.asked(SETTINGS) == {CONNECTIONS: 41.0}
    assert SERIES in EXPRESSIONS


def test_without_observability_nobody_is_asked():
    assert prometheus_figures.asked({"COMPOSE_PROFILES": "data"}) == {}


def test_only_metrics_that_exist_are_asked_for():
    known = metric_contract.known_metrics(ROOT, Path(find_spec("airflow").origin).parent)
    assert {
        name: unknown for name, text in EXPRESSIONS.items() if (unknown := metric_contract.unknown_in(text, known))
    } == {}
