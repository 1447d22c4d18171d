"""Whether the other dashboards are complete: scrape targets, dropped metrics, and the collector."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query

TELEMETRY = Dashboard(
    uid="airflow-telemetry",
    title="Telemetry",
    question="Are the other dashboards complete: is every target scraped, and is no metric lost?",
    rows=(
        (
            Panel(
                "Scrape targets",
                "Can Prometheus scrape every target? A red target has no new data, whatever the state of its service.",
                "states",
                (Query("up", "{{job}}"),),
                steps=ALL_IS_GOOD,
                value_texts=((1, "up", "green"), (0, "down", "red")),
                width=12,
                height=8,
                runbook="TargetDown",
            ),
            Panel(
                "StatsD lines with errors",
                "Does every metric have a mapping? Unmapped: mapping.yaml does not know a metric of Airflow. "
                "Conflict, error, bad tag: the metric is dropped.",
                "value",
                (
                    Query("sum(increase(statsd_exporter_events_unmapped_total[$__range]))", "unmapped"),
                    Query(
                        "sum(increase(statsd_exporter_events_conflict_total[$__range]))"
                        " or 0 * sum(statsd_exporter_lines_total)",
                        "in conflict",
                    ),
                    Query(
                        "sum(increase(statsd_exporter_events_error_total[$__range]))"
                        " or 0 * sum(statsd_exporter_lines_total)",
                        "in error",
                    ),
                    Query("sum(increase(statsd_exporter_tag_errors_total[$__range]))", "bad tag"),
                    Query("sum(increase(statsd_exporter_udp_packet_drops_total[$__range]))", "packet dropped"),
                ),
                steps=NONE_IS_GOOD,
                width=12,
                height=8,
                runbook="MetricsDropped",
            ),
        ),
        (
            Panel(
                "StatsD lines a second",
                "How many metrics does Airflow send? At 0, Airflow is stopped, or UDP does not arrive.",
                "lines",
                (Query("sum(rate(statsd_exporter_lines_total[$__rate_interval]))", "lines"),),
                unit="ops",
                runbook="MetricsDropped",
            ),
            Panel(
                "Completed tries, StatsD and OpenTelemetry",
                "Do StatsD and OpenTelemetry agree? The lines match, except for the ten seconds of the collector's "
                "batch.",
                "lines",
                (
                    Query("sum(increase(airflow_task_finish_total[5m]))", "StatsD"),
                    Query("sum(increase(otel_airflow_ti_finish_total[5m]))", "OpenTelemetry"),
                ),
                runbook="MetricsDropped",
            ),
            Panel(
                "Collector: accepted and refused a second",
                "Does the collector accept what it receives? It refuses data at its memory limit.",
                "lines",
                (
                    Query(
                        'sum(rate({__name__=~"otelcol_receiver_accepted_metric_points(_total)?"}[$__rate_interval]))',
                        "metric points",
                    ),
                    Query(
                        'sum(rate({__name__=~"otelcol_receiver_accepted_spans(_total)?"}[$__rate_interval]))',
                        "spans",
                    ),
                    Query(
                        'sum(rate({__name__=~"otelcol_receiver_refused_metric_points(_total)?"}[$__rate_interval]))',
                        "metric points refused",
                    ),
                    Query(
                        'sum(rate({__name__=~"otelcol_receiver_refused_spans(_total)?"}[$__rate_interval]))',
                        "spans refused",
                    ),
                ),
                unit="ops",
                runbook="CollectorRefuses",
            ),
        ),
        (
            Panel(
                "Series in Prometheus",
                "Does a metric have too many series? A step up is a tag with many values. To find the metric: "
                "topk(10, count by (__name__) ({job='statsd-exporter'})).",
                "lines",
                (
                    Query("prometheus_tsdb_head_series", "all"),
                    Query('scrape_samples_scraped{job="statsd-exporter"}', "Airflow"),
                ),
                width=12,
                runbook="CardinalityGrows",
            ),
            Panel(
                "Scrape duration, by target",
                "Is a target slow to respond? At 8 s Prometheus gives up and counts it as down.",
                "lines",
                (Query("scrape_duration_seconds", "{{job}}"),),
                unit="s",
            ),
            Panel(
                "Rule evaluation failures",
                "Is every rule evaluated? A rule that fails has no series, and its alert never fires.",
                "value",
                (Query("sum(increase(prometheus_rule_evaluation_failures_total[$__range]))"),),
                steps=NONE_IS_GOOD,
                width=4,
                runbook="RulesFail",
            ),
        ),
    ),
)
