"""Send this project's gauges and counters to OpenTelemetry within a bounded time.

Tasks live for seconds, so nothing runs in the background: `recording()` collects, and sends once at its end. A missing,
frozen or refusing collector costs at most SEND_LIMIT seconds, one warning and the measured values. Without
OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) nothing is sent and no time is spent.

The import takes a good part of a second of CPU (protobuf, requests): import it in the task, not in a DAG file.
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
"""Seconds for which sending may block the caller."""

log = logging.getLogger(__name__)


@contextmanager
def recording(service: str = "airflow-ha", limit: float = SEND_LIMIT) -> Iterator[Meter]:
    """Collect measurements in the block, and send them at its end, also after an exception.

    Counters are sent as deltas: each task's process starts at 0, which a cumulative series would show as a reset. The
    collector adds them up (`delta_to_cumulative`).

    Args:
        service: OpenTelemetry's `service.name`.
        limit: seconds that sending may take.

    Yields:
        A meter that creates gauges and counters.
    """
    # The resource has no instance: otherwise each process would be a separate series.
    resource = Resource({SERVICE_NAME: service})
    if not any(os.environ.get(name) for name in (OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)):
        yield MeterProvider(resource=resource, shutdown_on_exit=False).get_meter(__name__)
        return
    exporter = OTLPMetricExporter(timeout=limit, preferred_temporality={Counter: AggregationTemporality.DELTA})
    # Without an interval the reader starts no thread, and sends only at a flush.
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    try:
        yield provider.get_meter(__name__)
    finally:
        _flush(provider, limit)


def _flush(provider: MeterProvider, limit: float) -> None:
    # In a separate thread, which is abandoned after the limit: the exporter's timeout covers neither the resolution of
    # the collector's name nor its retry.
    # https://github.com/open-telemetry/opentelemetry-python/blob/v1.44.0/exporter/opentelemetry-exporter-otlp-proto-http/src/opentelemetry/exporter/otlp/proto/http/metric_exporter/__init__.py
    def flush() -> None:
        try:
            provider.force_flush(timeout_millis=limit * 1000)
        except Exception:
            log.warning("cannot send metrics to OpenTelemetry", exc_info=True)

    thread = threading.Thread(target=flush, name="otel-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        log.warning("cannot send metrics to OpenTelemetry: no thread available")
        return
    thread.join(limit)
    if thread.is_alive():
        log.warning("cannot send metrics to OpenTelemetry: no response of the collector within %.1f s", limit)


def record_gauge(
    name: str, value: float, attributes: Mapping[str, str] | None = None, limit: float = SEND_LIMIT
) -> None:
    """Send one value; see `record_gauges`, and `Measurement` for the arguments."""
    record_gauges([Measurement(name, value, attributes or {})], limit)


def record_gauges(measurements: Iterable[Measurement], limit: float = SEND_LIMIT) -> None:
    """Send values through OpenTelemetry in one request, and through Airflow's StatsD.

    Both give the same name in Prometheus: Airflow prefixes its StatsD names with `airflow.`.

    Args:
        measurements: the values; those of one name differ in their attributes.
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
        log.warning("cannot send %d measurements to OpenTelemetry", len(values), exc_info=True)


def _record_statsd(measurement: Measurement) -> None:
    name, value, attributes = measurement
    try:
        from airflow.sdk.observability import stats

        stats.gauge(name.removeprefix("airflow_"), value, tags=dict(attributes))
    except Exception:
        log.warning("cannot send %s to StatsD", name, exc_info=True)
