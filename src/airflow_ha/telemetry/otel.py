"""What this project itself measures, on its way to OpenTelemetry: gauges and counters, at a bounded cost in time.

Tasks live for seconds, so nothing here runs in the background or outlives a call: `recording()` collects, and sends
once when it ends. An absent, frozen or refusing collector costs SEND_LIMIT seconds at most and one warning; what was
measured is then lost. Without OTEL_EXPORTER_OTLP_ENDPOINT (or its METRICS twin) nothing is sent and no time is spent.

Importing this takes a good part of a second of processor time (protobuf, requests): do it in the task, not while a
DAG file is parsed.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from airflow_ha.telemetry.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.metrics import Meter

SEND_LIMIT = 1.0
"""Seconds that sending may keep the caller."""

log = logging.getLogger(__name__)


@contextmanager
def recording(service: str = "airflow-ha", limit: float = SEND_LIMIT) -> Iterator[Meter]:
    """Measure inside the block; what was measured is sent when it ends, also by an exception.

    Counters are sent as deltas: each task's process starts at nought, which a cumulative series would show as a reset.
    The collector adds them up (`delta_to_cumulative`).

    Args:
        service: OpenTelemetry's `service.name`.
        limit: seconds that sending may take.

    Yields:
        A meter, to make gauges and counters with.
    """
    # No instance in the resource: every process would be a series of its own.
    resource = Resource({SERVICE_NAME: service})
    if not any(os.environ.get(name) for name in (OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)):
        yield MeterProvider(resource=resource, shutdown_on_exit=False).get_meter(__name__)
        return
    exporter = OTLPMetricExporter(timeout=limit, preferred_temporality={Counter: AggregationTemporality.DELTA})
    # Without an interval the reader starts no thread: it sends when it is told to.
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    try:
        yield provider.get_meter(__name__)
    finally:
        _flush(provider, limit)


def _flush(provider: MeterProvider, limit: float) -> None:
    # In a thread of its own, which is left behind when it takes too long: the exporter's time-out covers neither the
    # look-up of the collector's name nor its second try.
    # https://github.com/open-telemetry/opentelemetry-python/blob/v1.44.0/exporter/opentelemetry-exporter-otlp-proto-http/src/opentelemetry/exporter/otlp/proto/http/metric_exporter/__init__.py
    def flush() -> None:
        try:
            provider.force_flush(timeout_millis=limit * 1000)
        except Exception:
            log.warning("metrics were not sent to OpenTelemetry", exc_info=True)

    thread = threading.Thread(target=flush, name="otel-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        log.warning("metrics were not sent to OpenTelemetry: no thread could be started")
        return
    thread.join(limit)
    if thread.is_alive():
        log.warning("metrics were not sent to OpenTelemetry: the collector took longer than %.1f s", limit)


def record_gauge(
    name: str, value: float, attributes: Mapping[str, str] | None = None, limit: float = SEND_LIMIT
) -> None:
    """Tell one value: see `record_gauges`, and `Measurement` for the arguments."""
    record_gauges([Measurement(name, value, attributes or {})], limit)


def record_gauges(measurements: Iterable[Measurement], limit: float = SEND_LIMIT) -> None:
    """Tell values, over OpenTelemetry in one request and over Airflow's StatsD.

    The StatsD name is the same in Prometheus: Airflow puts `airflow.` before it.

    Args:
        measurements: the values; several of one name differ in their attributes.
        limit: seconds that sending may take.
    """
    values = list(measurements)
    for measurement in values:
        _record_statsd(measurement)
    try:
        with recording(limit=limit) as meter:
            gauges = {name: meter.create_gauge(name) for name in {measurement.name for measurement in values}}
            for name, value, attributes in values:
                gauges[name].set(value, dict(attributes))
    except Exception:
        log.warning("%d measurements were not sent to OpenTelemetry", len(values), exc_info=True)


def _record_statsd(measurement: Measurement) -> None:
    name, value, attributes = measurement
    try:
        from airflow.sdk.observability import stats

        stats.gauge(name.removeprefix("airflow_"), value, tags=dict(attributes))
    except Exception:
        log.warning("%s was not sent to StatsD", name, exc_info=True)
