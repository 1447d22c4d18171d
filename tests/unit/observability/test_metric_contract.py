"""The mapping covers exactly the metrics that the installed Airflow sends; rules and dashboards query only these."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from ops.observability import metric_contract as contract
from ops.project import ROOT

AIRFLOW = Path(find_spec("airflow").origin).parent
RULES = contract.mapping_rules((ROOT / contract.MAPPING).read_text())
METRICS = contract.airflow_metrics(AIRFLOW)
KNOWN = contract.known_metrics(ROOT, AIRFLOW)


def test_no_metric_of_airflow_is_unmapped():
    unmapped = [
        f"{name} ({metric.type})"
        for metric in METRICS
        for name in contract.statsd_names(metric)
        if contract.rule_for(RULES, name, metric.type) is None
    ]
    assert unmapped == []


def test_a_metric_without_a_rule_is_unmapped():
    assert contract.rule_for(RULES, "airflow.brand_new", "counter") is None


def test_a_metric_of_another_type_is_unmapped():
    assert contract.rule_for(RULES, "airflow.ti.finish", "gauge") is None


def test_every_rule_maps_a_metric_that_exists():
    arriving = [(name, metric.type) for metric in METRICS for name in contract.statsd_names(metric)]
    idle = [
        rule.match
        for rule in RULES
        if not rule.name.startswith("airflow_ha_")
        and not any(contract.rule_for([rule], name, kind) for name, kind in arriving)
        and rule.name != "airflow_$1"
    ]
    assert idle == []


def test_no_two_metrics_share_a_name_in_prometheus():
    sources_by_series = defaultdict(set)
    for metric in METRICS:
        for name in contract.statsd_names(metric):
            rule = contract.rule_for(RULES, name, metric.type)
            if not rule.dropped:
                for series in contract.series_names(rule.prometheus_name(name), rule.type):
                    sources_by_series[series].add((metric.type, rule.match))
    assert {series: sources for series, sources in sources_by_series.items() if len(sources) > 1} == {}


def test_every_rule_has_a_type():
    assert [rule.match for rule in RULES if rule.type not in contract.EXPORTER_TYPE.values()] == []


def test_only_gauges_expire():
    assert [rule.match for rule in RULES if bool(rule.ttl) != (rule.type == "gauge")] == []


@pytest.mark.parametrize("tag", ["job_id", "dagrun_id", "run_id", "try_number", "map_index"])
def test_a_tag_that_differs_by_run_is_no_label(tag):
    kept = [
        metric.name
        for metric in METRICS
        for name in contract.statsd_names(metric)
        if tag in metric.tags and (tag, "") not in contract.rule_for(RULES, name, metric.type).labels
    ]
    assert kept == []


@pytest.mark.parametrize(
    "name",
    [
        "monitoring_last_success_timestamp_seconds",
        "monitoring_findings",
        "oldest_queued_task_seconds",
        "dag_overdue_seconds",
        "dag_run_failure_ratio",
        "failure_ratio",
    ],
)
def test_monitoring_gauges_have_no_worker_labels(name):
    rule = contract.rule_for(RULES, f"airflow.ha_{name}", "gauge")
    assert rule.prometheus_name(f"airflow.ha_{name}") == f"airflow_ha_{name}"
    assert dict(rule.labels) == {"airflow_instance": "", "component": ""}
    # AirflowMonitoringStale distinguishes an old time from none; a DAG's gauges expire soon after the DAG.
    assert rule.ttl == ("5m" if name.startswith("monitoring_") else "3m")


def test_metrics_beyond_the_template_are_in_the_source():
    removed = [
        metric.name
        for metric, source, words in contract.BEYOND_THE_TEMPLATE
        if words not in re.sub(r"\s+", " ", (AIRFLOW / source).read_text())
    ]
    assert removed == []


def test_every_name_in_the_source_is_known():
    known = {metric.name for metric in METRICS}
    unknown = [
        name
        for name in contract.sent_names(AIRFLOW)
        if not any(re.fullmatch(re.escape(name).replace(re.escape("{…}"), ".+"), other) for other in known)
    ]
    assert unknown == []


def test_rules_and_dashboards_query_existing_metrics_only():
    assert contract.unknown_metrics(ROOT, AIRFLOW) == {}


def test_every_declared_exporter_metric_is_queried():
    expressions = [*contract.rule_expressions(ROOT).values(), *contract.panel_expressions(ROOT).values()]
    queried = [contract.queried_metrics(expression) for expression in expressions]
    names = {name for query in queried for name in query.names}
    patterns = {pattern for query in queried for pattern in query.patterns}
    declared = {name for exporter in contract.EXPORTED.values() for name in exporter.metrics}
    unused = {name for name in declared - names if not any(re.fullmatch(pattern, name) for pattern in patterns)}
    assert unused == set()


@pytest.mark.parametrize(
    "name",
    [
        "airflow_dagrun_duration_seconds",
        "airflow_dagrun_success",
        "airflow_dagrun_failed",
        "airflow_dagrun_total",
        "airflow_task_duration",
        "airflow_task_start",
        "airflow_task_success",
        "airflow_task_failed",
        "airflow_scheduler_heartbeat",
        "airflow_dag_processing_total_parse_time",
        "airflow_executor_queued_tasks",
        # Grafana's mixin for Airflow.
        "airflow_dag_processing_import_errors",
        "airflow_dagrun_duration_success_sum",
        "airflow_dagrun_duration_failed_count",
        "airflow_dagrun_schedule_delay_sum",
        "airflow_dag_task_duration_count",
        "airflow_ti_failures",
        "airflow_task_start_total",
        "airflow_task_finish_total",
        "airflow_scheduler_tasks_executable",
        "airflow_scheduler_tasks_starving",
        "airflow_executor_running_tasks",
        "airflow_executor_open_slots",
        "airflow_pool_running_slots",
        "airflow_pool_queued_slots",
        "airflow_pool_starving_tasks",
        "airflow_pool_open_slots",
    ],
)
def test_names_that_airflow_users_query_exist(name):
    assert name in KNOWN


def test_a_removed_metric_is_unknown():
    assert contract.unknown_in('sum(rate(airflow_sla_missed{dag_id="d"}[5m]))', KNOWN) == {"airflow_sla_missed"}
    assert contract.unknown_in('{__name__=~"airflow_sla_.*"}', KNOWN) == {"airflow_sla_.*"}


def test_a_metric_in_the_template_but_not_sent_is_unknown():
    assert contract.unknown_in("airflow_dag_file_refresh_error", KNOWN)


@pytest.mark.parametrize(
    ("expression", "names", "patterns"),
    [
        ("up", {"up"}, set()),
        ('sum by (dag_id) (rate(a_total{state="failed or b"}[5m] offset 1h)) / on (dag_id) c', {"a_total", "c"}, set()),
        ("topk(5, a) unless on () (b or vector(0))", {"a", "b"}, set()),
        ('label_replace(a, "x", "$1", "y", "(.*)") * on (x) group_left (c) d', {"a", "d"}, set()),
        ('increase({__name__=~"a_(b|c)", job="x"}[$__range])', set(), {"a_(b|c)"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[$__rate_interval])))", {"a_bucket"}, set()),
        ("1 - a / 2e3 > bool 0 # b", {"a"}, set()),
        ("max_over_time((a > 0)[5m:10s])", {"a"}, set()),
    ],
)
def test_metrics_of_an_expression_are_parsed(expression, names, patterns):
    assert contract.queried_metrics(expression) == contract.QueriedMetrics(frozenset(names), frozenset(patterns))
