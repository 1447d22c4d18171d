"""Figures of a bench that only Prometheus has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import settings_file
from ops.clients import prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.bench.statistics import Sample

CONNECTIONS, SERIES = "connections to Postgres, most in a minute", "StatsD series"
EXPRESSIONS: Final = {
    CONNECTIONS: "max_over_time(sum(pg_stat_activity_count)[1m:5s])",
    SERIES: 'scrape_samples_scraped{job="statsd-exporter"}',
}


def query_figures(settings: Mapping[str, str]) -> Sample:
    """Return the current figures; none without the profile `observability`."""
    if "observability" not in settings_file.profiles(settings):
        return {}
    server = prometheus.connect(settings)
    sample = {name: server.value(expression) for name, expression in EXPRESSIONS.items()}
    return {name: value for name, value in sample.items() if value is not None}
