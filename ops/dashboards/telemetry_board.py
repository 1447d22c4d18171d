"""Can the other dashboards be believed: is every target scraped, and is nothing lost on the way."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query

TELEMETRY = Dashboard(
    uid="airflow-telemetry",
    title="Telemetry itself",
    question="Can the other dashboards be believed: is every target scraped, and is nothing lost on the way?",
    rows=(
        (
            Panel(
                "Targets, by name",
                "Does Prometheus reach everything? What is red is blind: its panels stop, whatever its service does.",
                "states",
                (Query("up", "{{job}}"),),
                steps=ALL_IS_GOOD,
                words=((1, "up", "green"), (0, "down", "red")),
                width=12,
                height=8,
                runbook="TargetDown",
            ),
            Panel(
                "Lines from Airflow that went wrong",
                "Does every metric find its name? Unmapped: Airflow sends one that mapping.yaml does not know. "
                "Conflict, error, bad tag: it is dropped.",
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
                "Lines a second",
                "How much does Airflow tell? A fall to 0 is Airflow stopped, or UDP that does not arrive.",
                "lines",
                (Query("sum(rate(statsd_exporter_lines_total[$__rate_interval]))", "lines"),),
                unit="ops",
                runbook="MetricsDropped",
            ),
            Panel(
                "Attempts that ended, counted both ways",
                "Do StatsD and OpenTelemetry say the same? The lines lie on each other, but for the ten seconds "
                "that the collector gathers.",
                "lines",
                (
                    Query("sum(increase(airflow_task_finish_total[5m]))", "StatsD"),
                    Query("sum(increase(otel_airflow_ti_finish_total[5m]))", "OpenTelemetry"),
                ),
                runbook="MetricsDropped",
            ),
            Panel(
                "Collector: taken and refused a second",
                "Does the collector take what it is sent? Refused: its memory limit.",
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
                "Does something flood us? A step up is a tag that takes many values; which metric it is: "
                "topk(10, count by (__name__) ({job='statsd-exporter'})).",
                "lines",
                (
                    Query("prometheus_tsdb_head_series", "in all"),
                    Query('scrape_samples_scraped{job="statsd-exporter"}', "of Airflow"),
                ),
                width=12,
                runbook="CardinalityGrows",
            ),
            Panel(
                "Time to scrape, by target",
                "Is any target slow to answer? At 8 s Prometheus gives up and counts it as down.",
                "lines",
                (Query("scrape_duration_seconds", "{{job}}"),),
                unit="s",
            ),
            Panel(
                "Rules that failed",
                "Is every rule evaluated? A rule that fails makes no series, and its alert never fires.",
                "value",
                (Query("sum(increase(prometheus_rule_evaluation_failures_total[$__range]))"),),
                steps=NONE_IS_GOOD,
                width=4,
                runbook="RulesFail",
            ),
        ),
    ),
)
