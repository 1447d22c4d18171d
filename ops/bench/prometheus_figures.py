"""What only Prometheus knows of the stack, where it runs: figures of a bench beside those that it measures itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import settings_file
from ops.clients.prometheus import Prometheus
from ops.services import local_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.bench.statistics import Sample

CONNECTIONS, SERIES = "connections to Postgres, most in a minute", "StatsD series"
EXPRESSIONS: Final = {
    CONNECTIONS: "max_over_time(sum(pg_stat_activity_count)[1m:5s])",
    SERIES: 'scrape_samples_scraped{job="statsd-exporter"}',
}


def asked(settings: Mapping[str, str]) -> Sample:
    """The figures as they are now; none without the profile `observability`."""
    if "observability" not in settings_file.profiles(settings):
        return {}
    server = Prometheus(local_url(settings, "prometheus"))
    found = {name: server.value(expression) for name, expression in EXPRESSIONS.items()}
    return {name: value for name, value in found.items() if value is not None}
