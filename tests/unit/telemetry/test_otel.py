"""Our own measurements reach an OTLP collector, and a failing collector costs a bounded time."""

from __future__ import annotations

import gzip
import http.server
import socket
import threading
import time

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

from airflow_ha.telemetry import otel
from airflow_ha.telemetry.measurement import Measurement
from airflow_ha.telemetry.otel import record_gauge, record_gauges, recording

LIMIT = 0.3
SLACK = 10.0
"""Seconds of delay that a loaded machine may add."""


@pytest.fixture
def collector(monkeypatch):
    """An HTTP stub that keeps requests and responds with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            server.requests.append((self.path, ExportMetricsServiceRequest.FromString(body)))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sent(collector):
    (path, request), *more = collector.requests
    assert (path, more) == ("/v1/metrics", [])
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return resource.resource, {metric.name: metric for metric in scope.metrics}


def test_gauge_arrives_with_its_attributes_in_one_request(collector):
    record_gauge("airflow_ha_canary_latency_seconds", 1.25, {"dag_id": "canary_dag"}, limit=10)
    resource, metrics = sent(collector)
    (point,) = metrics["airflow_ha_canary_latency_seconds"].gauge.data_points
    assert point.as_double == 1.25
    assert {a.key: a.value.string_value for a in point.attributes} == {"dag_id": "canary_dag"}
    assert {a.key: a.value.string_value for a in resource.attributes} == {"service.name": "airflow-ha"}


def test_many_values_arrive_in_one_request_and_each_in_statsd(collector, monkeypatch):
    from airflow.sdk.observability import stats

    calls = []
    monkeypatch.setattr(stats, "gauge", lambda *args, **kwargs: calls.append((*args, kwargs["tags"])))
    values = [Measurement("airflow_ha_x", 1, {"dag_id": "a"}), Measurement("airflow_ha_x", 2, {"dag_id": "b"})]
    record_gauges(iter([*values, Measurement("airflow_ha_y", 3)]), limit=10)
    metrics = sent(collector)[1]
    points = {
        point.attributes[0].value.string_value: point.as_int for point in metrics["airflow_ha_x"].gauge.data_points
    }
    assert points == {"a": 1, "b": 2}
    assert [point.as_int for point in metrics["airflow_ha_y"].gauge.data_points] == [3]
    assert calls == [("ha_x", 1, {"dag_id": "a"}), ("ha_x", 2, {"dag_id": "b"}), ("ha_y", 3, {})]


def test_counters_arrive_as_deltas(collector):
    with recording(limit=10) as meter:
        findings = meter.create_counter("airflow_ha_findings_total")
        findings.add(2)
        findings.add(1)
    total = sent(collector)[1]["airflow_ha_findings_total"].sum
    assert total.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
    assert [point.as_int for point in total.data_points] == [3]


def test_measurements_before_an_exception_arrive(collector):
    def measure():
        with recording(limit=10) as meter:
            meter.create_gauge("before").set(1)
            raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        measure()
    assert "before" in sent(collector)[1]


def test_gauge_is_also_sent_to_statsd_without_its_prefix(collector, monkeypatch):
    from airflow.sdk.observability import stats

    calls = []
    monkeypatch.setattr(stats, "gauge", lambda *args, **kwargs: calls.append((args, kwargs)))
    record_gauge("airflow_ha_canary_latency_seconds", 1.25, {"dag_id": "d"}, limit=10)
    assert calls == [(("ha_canary_latency_seconds", 1.25), {"tags": {"dag_id": "d"}})]


def took(call) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_without_an_endpoint_no_thread_is_started(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", raising=False)
    monkeypatch.setattr(otel, "OTLPMetricExporter", None)
    monkeypatch.setattr(otel, "_flush", None)
    record_gauge("m", 1)


def test_frozen_collector_costs_the_limit(monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # accepts connections, never responds
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{frozen.getsockname()[1]}")
        assert took(lambda: record_gauge("m", 1, limit=LIMIT)) < LIMIT + SLACK
    assert "within 0.3 s" in caplog.text or "Failed to export" in caplog.text


def test_missing_collector_costs_at_most_the_limit(monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    assert took(lambda: record_gauge("m", 1, limit=LIMIT)) < LIMIT + SLACK
    assert "Failed to export" in caplog.text


def test_endless_name_resolution_costs_the_limit(monkeypatch, caplog):
    answered = threading.Event()

    def getaddrinfo(*args, **kwargs):
        answered.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector:4318")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        assert took(lambda: record_gauge("m", 1, limit=LIMIT)) < LIMIT + SLACK
    finally:
        answered.set()
    assert "within 0.3 s" in caplog.text


@pytest.mark.parametrize("status", [400, 503])
def test_collector_that_refuses_raises_no_error(collector, status, caplog):
    collector.status = status
    assert took(lambda: record_gauge("m", 1, limit=LIMIT)) < LIMIT + SLACK
    assert "Failed to export" in caplog.text


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://[", "ftp://x"])
def test_invalid_endpoint_raises_no_error(monkeypatch, endpoint):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    record_gauge("m", 1, limit=LIMIT)
