"""The metrics that exist, and those that rules and dashboards query: `unknown_metrics` returns the difference.

Airflow's list is the `metrics_template.yaml` of the installed Airflow, mapped by compose/statsd-exporter/mapping.yaml.
Recorded metrics are read from the rules. The project's own metrics are all strings `airflow_ha_…` in its source. Only
the metrics of other programs are listed here (EXPORTED), with the link to their documentation.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from ops.observability import certificate_expiry, container_names, expected_replicas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

MetricType = Literal["counter", "gauge", "timer"]

MAPPING: Final = "compose/statsd-exporter/mapping.yaml"
RULES: Final = ("compose/prometheus/rules", "alerting/rules")
DASHBOARDS: Final = "ops/dashboards/generated"
SOURCES: Final = ("src", "dags", "compose/backup")

_OWN: Final = re.compile(r"airflow_ha_[a-z0-9_]+")

PREFIX: Final = "airflow."
"""`[metrics] statsd_prefix`, and a dot."""


@dataclass(frozen=True)
class Metric:
    """A metric that Airflow sends.

    Attributes:
        name: Without the prefix; `{…}` marks a variable part.
        type: The StatsD type.
        tags: The tags in the template; the source may send more.
    """

    name: str
    type: MetricType
    tags: frozenset[str]


@dataclass(frozen=True)
class Rule:
    """A rule of the mapping.

    Attributes:
        match: A glob over the dotted name, or a regular expression.
        is_regex: Whether `match` is a regular expression.
        type: The only type it matches, in the exporter's terms ("observer" for a timer).
        name: The name in Prometheus; `$1` is a captured part.
        dropped: Whether the metric is discarded.
        labels: Set by the rule; an empty value removes the label.
        ttl: Lifetime of a series after its last line, as written (`15s`); empty for no limit.
    """

    match: str
    is_regex: bool
    type: str
    name: str
    dropped: bool
    labels: tuple[tuple[str, str], ...]
    ttl: str

    def prometheus_name(self, statsd_name: str) -> str | None:
        """Return the Prometheus name of a StatsD name by this rule; None if the rule does not match."""
        match = re.search(self.match, statsd_name) if self.is_regex else _glob(self.match).fullmatch(statsd_name)
        if match is None:
            return None
        return re.sub(r"\$(\d+)", lambda group: match[int(group[1])], self.name)


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    # In statsd_exporter a `*` matches one part between dots.
    return re.compile(re.escape(pattern).replace(r"\*", r"([^.]*)"))


EXPORTER_TYPE: Final[dict[MetricType, str]] = {"counter": "counter", "gauge": "gauge", "timer": "observer"}
"""statsd_exporter's name of each type."""


# --- Airflow

BEYOND_THE_TEMPLATE: Final = (
    # Metrics in the source of Airflow 3.3.2 that the template lacks, with the code that sends them.
    (Metric("ti.awaiting_input", "gauge", frozenset({"queue", "dag_id", "task_id"})),
     "jobs/scheduler_job_runner.py", "State.AWAITING_INPUT}"),
    (Metric("dagrun.{dag_id}.first_task_scheduling_delay", "timer", frozenset({"dag_id", "run_type"})),
     "models/dagrun.py", 'f"dagrun.{dag.dag_id}.first_task_scheduling_delay"'),
    (Metric("callback_{status}", "counter", frozenset({"path", "kwargs", "result", "dag_id"})),
     "models/callback.py", 'f"callback_{status}"'),
    (Metric("{prefix}.callback_{status}", "counter", frozenset({"path", "kwargs", "result", "dag_id"})),
     "models/callback.py", 'f"{prefix}.callback_{status}"'),
)  # fmt: skip

PLACEHOLDERS: Final = {
    "job_name": ("job", "schedulerjobrunner"),
    "status": ("success", "failed", "running"),
    "prefix": ("deadline_alerts",),
    "dag_id": ("canary_dag", "team.nightly"),
}
"""Values of the variable parts of names that only take certain values."""


def template_of(airflow: Path) -> Path:
    """Return the path of the metrics list in an installed Airflow package."""
    return airflow / "_shared/observability/metrics/metrics_template.yaml"


def template_metrics(text: str) -> tuple[Metric, ...]:
    """Return the metrics in the content of metrics_template.yaml."""
    return tuple(Metric(entry["name"], entry["type"], _tags(entry)) for entry in yaml.safe_load(text)["metrics"])


def _tags(entry: dict[str, Any]) -> frozenset[str]:
    """Return the variables of the legacy name, and those in the description ("Metric with dag_id tagging")."""
    match = re.search(r"Metric with ([\w, ]+) tagging", " ".join(entry["description"].split()))
    words = re.split(r", | and ", match[1]) if match else []
    return frozenset((set(entry["name_variables"]) | set(words)) - set(re.findall(r"\{(\w+)\}", entry["name"])))


def airflow_metrics(airflow: Path) -> tuple[Metric, ...]:
    """Return all metrics that an installed Airflow package (its folder) may send."""
    beyond = tuple(metric for metric, _, _ in BEYOND_THE_TEMPLATE)
    return template_metrics(template_of(airflow).read_text(encoding="utf-8")) + beyond


def statsd_names(metric: Metric) -> tuple[str, ...]:
    """Return the StatsD names of a metric, with the prefix: several if a part of the name is variable."""
    names = [metric.name]
    for place in re.findall(r"\{(\w+)\}", metric.name):
        names = [name.replace(f"{{{place}}}", value) for name in names for value in PLACEHOLDERS.get(place, (place,))]
    return tuple(PREFIX + name for name in names)


@cache
def sent_names(airflow: Path) -> frozenset[str]:
    """Return the names in the source's calls of `stats.incr` and similar; `{…}` marks a variable part.

    A name that is a variable as a whole is left out.
    """
    calls = re.compile(r"[sS]tats\.(?:incr|decr|gauge|timing|timer)\(")
    names: set[str] = set()
    for path in sorted(airflow.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if calls.search(text) and "_shared" not in path.parts:
            names.update(_sent_by(ast.parse(text)))
    return frozenset(names)


SENT_BY_VARIABLE: Final = frozenset({"executor.open_slots", "executor.queued_tasks", "executor.running_tasks"})
"""Metrics of executors/base_executor.py under computed names, which `sent_names` cannot find."""


def is_sent(metric: Metric, sent: Iterable[str]) -> bool:
    """Whether the source sends a metric: the template also lists removed and uninstalled ones."""
    patterns = (re.escape(name).replace(re.escape("{…}"), ".+") for name in sent)
    return metric.name in SENT_BY_VARIABLE or any(re.fullmatch(pattern, metric.name) for pattern in patterns)


def _sent_by(tree: ast.AST) -> Iterator[str]:
    for call in _calls(tree, {"incr", "decr", "gauge", "timing", "timer"}):
        if call.args and ast.unparse(call.func).lower().startswith("stats."):
            yield from _texts(call.args[0])


def _calls(tree: ast.AST, functions: Collection[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in functions:
                yield node


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in parts)
        case ast.BinOp(op=ast.Add(), right=ast.Constant(value=str(text))):
            yield "{…}" + text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)


# --- From StatsD to Prometheus


def mapping_rules(text: str) -> tuple[Rule, ...]:
    """Return the rules of a statsd_exporter mapping, in its order."""
    return tuple(
        Rule(
            match=entry["match"],
            is_regex=entry.get("match_type") == "regex",
            type=entry.get("match_metric_type", ""),
            name=entry["name"],
            dropped=entry.get("action") == "drop",
            labels=tuple(entry.get("labels", {}).items()),
            ttl=entry.get("ttl", ""),
        )
        for entry in yaml.safe_load(text)["mappings"]
    )


def rule_for(rules: Iterable[Rule], statsd_name: str, metric_type: MetricType) -> Rule | None:
    """Return the rule that the exporter applies: globs first, then regular expressions, in their order."""
    ordered = sorted(rules, key=lambda rule: rule.is_regex)
    exporter_type = EXPORTER_TYPE[metric_type]
    return next((rule for rule in ordered if rule.type == exporter_type and rule.prometheus_name(statsd_name)), None)


def series_names(name: str, exporter_type: str) -> set[str]:
    """Return the names of a metric's series in Prometheus: a histogram has three."""
    return {name + end for end in ("_bucket", "_count", "_sum")} if exporter_type == "observer" else {name}


def _sent_metrics(airflow: Path) -> Iterator[Metric]:
    beyond = {metric for metric, _, _ in BEYOND_THE_TEMPLATE}
    for metric in airflow_metrics(airflow):
        if metric in beyond or is_sent(metric, sent_names(airflow)):
            yield metric


def mapped_metrics(airflow: Path, rules: Collection[Rule]) -> set[str]:
    """Return the Prometheus names of all metrics that the installed Airflow sends."""
    names: set[str] = set()
    for metric in _sent_metrics(airflow):
        for statsd_name in statsd_names(metric):
            rule = rule_for(rules, statsd_name, metric.type)
            if rule is not None and not rule.dropped:
                names |= series_names(str(rule.prometheus_name(statsd_name)), rule.type)
    return names


def collector_metrics(airflow: Path) -> set[str]:
    """Return the names of the same metrics from the OpenTelemetry Collector."""
    names: set[str] = set()
    for metric in _sent_metrics(airflow):
        for statsd_name in statsd_names(metric):
            name = "otel_" + re.sub(r"[^a-zA-Z0-9_]", "_", statsd_name)
            match metric.type:
                case "counter":
                    names.add(name.removesuffix("_total") + "_total")
                case "gauge":
                    names.add(name)
                case "timer":
                    names |= series_names(name + "_seconds", "observer")
    return names


def own_metrics(root: Path, rules: Iterable[Rule]) -> set[str]:
    """Return the project's own metrics: the names in its source, and those with their own mapping rule."""
    names = {rule.name for rule in rules if not rule.is_regex and rule.name.startswith("airflow_ha_")}
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            names |= set(_own_names(ast.parse(path.read_text(encoding="utf-8"))))
    return names | {"otel_" + name for name in names}


def _own_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OWN.fullmatch(node.value):
            yield node.value


# --- Metrics of other programs


@dataclass(frozen=True)
class Exporter:
    """A program that exports metrics.

    Attributes:
        documented: Links to the documentation of its metrics.
        metrics: Only those that a rule or a dashboard queries.
    """

    documented: str
    metrics: frozenset[str]


EXPORTED: Final = {
    "prometheus": Exporter(
        "https://prometheus.io/docs/concepts/jobs_instances/ and https://github.com/prometheus/prometheus/tree/v3.5.0",
        frozenset({"up", "prometheus_tsdb_head_series", "prometheus_rule_evaluation_failures_total",
                   "prometheus_config_last_reload_successful", "process_start_time_seconds",
                   "prometheus_target_scrapes_exceeded_sample_limit_total",
                   "scrape_samples_scraped", "scrape_duration_seconds", "ALERTS"}),
    ),
    "alertmanager": Exporter(
        "https://github.com/prometheus/alertmanager/blob/v0.28.1/notify/notify.go and .../cluster/cluster.go",
        frozenset({"alertmanager_cluster_members", "alertmanager_notifications_failed_total",
                   "alertmanager_notification_requests_failed_total"}),
    ),
    "statsd-exporter": Exporter(
        "https://github.com/prometheus/statsd_exporter/blob/v0.30.0/main.go",
        frozenset({"statsd_exporter_events_unmapped_total",
                   "statsd_exporter_events_conflict_total", "statsd_exporter_events_error_total",
                   "statsd_exporter_lines_total", "statsd_exporter_tag_errors_total",
                   "statsd_exporter_udp_packet_drops_total"}),
    ),
    "otel-collector": Exporter(
        "https://opentelemetry.io/docs/collector/internal-telemetry/",
        frozenset({"otelcol_receiver_accepted_metric_points", "otelcol_receiver_accepted_spans",
                   "otelcol_receiver_refused_metric_points", "otelcol_receiver_refused_spans"}),
    ),
    "gateway": Exporter(
        "https://github.com/haproxy/haproxy/blob/v3.0.0/addons/promex/README",
        frozenset({"haproxy_server_status", "haproxy_backend_current_queue",
                   "haproxy_backend_http_responses_total", "haproxy_backend_response_time_average_seconds",
                   "haproxy_sticktable_used"}),
    ),
    "postgres-exporter": Exporter(
        "https://github.com/prometheus-community/postgres_exporter/blob/v0.17.1/cmd/postgres_exporter/queries.go"
        " and .../collector",
        frozenset({"pg_up", "pg_stat_activity_count", "pg_settings_max_connections", "pg_database_size_bytes",
                   "pg_stat_database_xact_commit", "pg_stat_database_xact_rollback", "pg_stat_database_deadlocks",
                   "pg_stat_activity_max_tx_duration", "pg_stat_replication_pg_wal_lsn_diff",
                   "pg_replication_is_replica"}),
    ),
    "redis-exporter": Exporter(
        "https://github.com/oliver006/redis_exporter/blob/v1.69.0/exporter/exporter.go",
        frozenset({"redis_up", "redis_key_size", "redis_memory_used_bytes", "redis_memory_max_bytes",
                   "redis_connected_clients", "redis_commands_processed_total", "redis_rejected_connections_total",
                   "redis_aof_last_write_status", "redis_aof_enabled", "redis_connected_slaves",
                   "redis_instance_info", "redis_master_link_up"}),
    ),
    "cadvisor": Exporter(
        "https://github.com/google/cadvisor/blob/v0.52.1/docs/storage/prometheus.md",
        frozenset({"container_memory_working_set_bytes", "container_spec_memory_limit_bytes"}),
    ),
}  # fmt: skip
"""The metrics of other programs, by exporting service."""


# --- Queried metrics

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'|`[^`]*`")
_BY_NAME = re.compile(r'__name__\s*(=~|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w$.:])[a-zA-Z_:][\w:]*(?!\s*\()\b(?![\w:]*\s*\()")
_KEYWORDS: Final = {"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end", "atan2"}


@dataclass(frozen=True)
class QueriedMetrics:
    """The metrics that a PromQL expression queries.

    Attributes:
        names: Metric names.
        patterns: Regular expressions over `__name__`.
    """

    names: frozenset[str]
    patterns: frozenset[str]


def queried_metrics(expression: str) -> QueriedMetrics:
    """Return the metrics of a PromQL expression, which may contain Grafana's variables (`$__rate_interval`)."""
    named = _BY_NAME.findall(expression)
    text = re.sub(r"#.*", "", _STRING.sub('""', expression))
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", text)
    text = re.sub(r"\boffset\s+-?\s*[\w$]+", " ", _GROUPING.sub(" ", text))
    words = {word for word in _WORD.findall(text) if word.lower() not in _KEYWORDS}
    return QueriedMetrics(
        names=frozenset(words | {name for operator, name in named if operator == "="}),
        patterns=frozenset(name for operator, name in named if operator == "=~"),
    )


def unknown_in(expression: str, known: Collection[str]) -> set[str]:
    """Return the names and patterns of an expression that match no known metric."""
    queried = queried_metrics(expression)
    unmatched = {pattern for pattern in queried.patterns if not any(re.fullmatch(pattern, name) for name in known)}
    return {name for name in queried.names if name not in known} | unmatched


def rule_files(root: Path) -> list[Path]:
    """Return every file of recording and alert rules."""
    return [path for folder in RULES for path in sorted((root / folder).glob("*.yaml"))]


def rule_expressions(root: Path) -> dict[str, str]:
    """Return every rule's expression, by `file: name`."""
    return {
        f"{path.name}: {rule.get('record') or rule['alert']}": str(rule["expr"])
        for path in rule_files(root)
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    }


def recorded_metrics(root: Path) -> set[str]:
    """Return the names that recording rules record."""
    return {
        rule["record"]
        for path in rule_files(root)
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def panel_expressions(root: Path) -> dict[str, str]:
    """Return every query of every panel, by `file: panel: legend`."""
    return {
        f"{path.name}: {panel['title']}: {target.get('legendFormat', '')} {target['refId']}": target["expr"]
        for path in sorted((root / DASHBOARDS).glob("*.json"))
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", [])
    }


def known_metrics(root: Path, airflow: Path) -> set[str]:
    """Return the names of all metrics of the stack.

    Args:
        root: The repository.
        airflow: The folder of the installed package.
    """
    rules = mapping_rules((root / MAPPING).read_text(encoding="utf-8"))
    return (
        mapped_metrics(airflow, rules)
        | collector_metrics(airflow)
        | own_metrics(root, rules)
        | recorded_metrics(root)
        | expected_replicas.recorded()
        | {container_names.RECORDED, certificate_expiry.RECORDED}
        | {name for exporter in EXPORTED.values() for name in exporter.metrics}
    )


def unknown_metrics(root: Path, airflow: Path) -> dict[str, set[str]]:
    """Return the unknown metrics of each rule and panel that queries any."""
    known = known_metrics(root, airflow)
    expressions = rule_expressions(root) | panel_expressions(root)
    return {where: unknown for where, expression in expressions.items() if (unknown := unknown_in(expression, known))}
