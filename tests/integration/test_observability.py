"""Metrics by both ways, traces, every instance by its name; and tasks that do not care whether any of it is there."""

from __future__ import annotations

import time

import pytest

from ops import metric_contract
from tests.integration.observability import attributes, prometheus, spans, total
from tests.integration.stack import ROOT, Stack, docker, wait_until

SEED_QUERIES = [
    "rate(airflow_task_failed[5m]) / rate(airflow_task_start[5m])",
    "avg(airflow_dagrun_duration_seconds) by (dag_id)",
    "sum(rate(airflow_dagrun_success[5m])) / sum(rate(airflow_dagrun_total[5m]))",
    "avg(airflow_task_duration) by (task_id)",
    "sum(rate(airflow_task_failed[1h])) by (dag_id)",
    "airflow_scheduler_heartbeat",
    "airflow_dag_processing_total_parse_time",
    "airflow_executor_queued_tasks",
]
SCRAPED_WITHIN = 45.0
"""Seconds from an event to its series: the collector adds up for 10 s, Prometheus scrapes every 10 s; and head-room."""

STATSD = 'airflow_task_{}_total{{dag_id="load", task_id="work"{}}}'
OTEL = 'otel_airflow_ti_{}_total{{dag_id="load", task_id="work"{}}}'


def test_every_target_is_up(healthy_stack: Stack):
    def up() -> bool:
        targets = prometheus(healthy_stack).targets()
        return bool(targets) and all(target["health"] == "up" for target in targets)

    wait_until(up, timeout=60, what="every target of Prometheus is up")
    assert {target["job"] for target in healthy_stack.status()["targets"]} >= {"statsd-exporter", "otel-collector"}


@pytest.mark.parametrize("query", SEED_QUERIES)
def test_the_queries_that_people_bring_return_data(stack: Stack, query: str):
    wait_until(lambda: prometheus(stack).query(query), timeout=150, what=f"{query} returns data", interval=2)


def test_a_run_of_40_tasks_is_counted_as_40_by_statsd_and_by_opentelemetry(healthy_stack: Stack):
    tasks = 40
    counts = {
        "statsd started": STATSD.format("start", ""),
        "statsd succeeded": STATSD.format("finish", ', state="success"'),
        "statsd durations": 'airflow_dag_task_duration_count{dag_id="load", task_id="work"}',
        "otel started": OTEL.format("start", ""),
        "otel succeeded": OTEL.format("finish", ', state="success"'),
        "otel durations": 'otel_airflow_task_duration_seconds_count{dag_id="load", task_id="work"}',
    }

    def now() -> dict[str, float]:
        return {name: total(healthy_stack, query) for name, query in counts.items()}

    before = now()
    run = healthy_stack.api.trigger("load", tasks=tasks, seconds=0)
    assert healthy_stack.api.wait_for_run("load", run, timeout=120) == "success"
    expected = {name: before[name] + tasks for name in counts}
    wait_until(lambda: now() == expected, timeout=SCRAPED_WITHIN, what=f"each count is {tasks} more than {before}")

    sums = [
        total(healthy_stack, 'airflow_dag_task_duration_sum{dag_id="load", task_id="work"}'),
        total(healthy_stack, 'otel_airflow_task_duration_seconds_sum{dag_id="load", task_id="work"}'),
    ]
    assert sums[0] == pytest.approx(sums[1], rel=0.01), "one way is in seconds, the other in something else"


def test_nothing_is_unmapped_in_conflict_or_malformed(stack: Stack):
    exporter = prometheus(stack)
    for counter in ("events_unmapped", "events_conflict", "events_error", "tag_errors", "sample_errors"):
        assert sum(float(one["value"][1]) for one in exporter.query(f"statsd_exporter_{counter}_total")) == 0, counter


def alive(stack: Stack) -> dict[str, float]:
    """Each instance that metrics know, and whether it lives."""
    found = prometheus(stack).query("airflow_instance_alive")
    return {one["metric"]["airflow_instance"]: float(one["value"][1]) for one in found}


def test_every_instance_is_visible_by_name_and_a_killed_one_changes_only_its_own_series(healthy_stack: Stack):
    names = ["scheduler", "dag-processor", "triggerer", "worker"]
    instances = {container.id[:12] for name in names for container in healthy_stack.containers(name)}
    wait_until(
        lambda: all(alive(healthy_stack).get(instance) == 1 for instance in instances),
        timeout=60,
        what=f"each of {instances} is alive in airflow_instance_alive",
    )
    victim = healthy_stack.containers("scheduler")[0]
    victim.kill()
    try:
        killed = time.monotonic()
        wait_until(
            lambda: alive(healthy_stack).get(victim.id[:12]) == 0, timeout=60, what="the killed scheduler is not alive"
        )
        print(f"seen after {time.monotonic() - killed:.0f} s")
        others = instances - {victim.id[:12]}
        now = alive(healthy_stack)
        assert {instance: now[instance] for instance in others} == dict.fromkeys(others, 1.0)
    finally:
        victim.start()


def test_a_dag_run_is_one_trace_from_the_scheduler_to_its_tasks(stack: Stack):
    run = stack.api.trigger("load", tasks=2, seconds=0)
    assert stack.api.wait_for_run("load", run, timeout=60) == "success"

    def of_run() -> list[dict]:
        return [span for span in spans(stack) if attributes(span).get("airflow.dag_run.run_id") == run]

    def whole() -> bool:
        names = [span["name"] for span in of_run()]
        return "dag_run.load" in names and sum(name.startswith("worker.work") for name in names) == 2

    wait_until(whole, timeout=60, what="the spans of the run and of its tasks are in the collector")
    found = of_run()
    assert len({span["traceId"] for span in found}) == 1
    by_id = {span["spanId"]: span for span in found}
    (root,) = [span for span in found if not span.get("parentSpanId")]
    assert (root["name"], root["service"]) == ("dag_run.load", "airflow-scheduler")
    for worker in (span for span in found if span["name"].startswith("worker.")):
        task = by_id[worker["parentSpanId"]]
        assert task["name"].startswith("task_run.")
        assert task["service"] == "airflow-execution-api"
        assert task["parentSpanId"] == root["spanId"]


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_tasks_run_as_ever_while_all_telemetry_is_away(healthy_stack: Stack, how: str):
    services = ("statsd-exporter", "otel-collector", "prometheus")
    victims = [container.id for service in services for container in healthy_stack.containers(service)]
    docker(how, *victims)
    try:
        run = healthy_stack.api.trigger("load", tasks=30, seconds=0)
        assert healthy_stack.api.wait_for_run("load", run, timeout=90) == "success"
        assert {ti["try_number"] for ti in healthy_stack.api.task_instances("load", run, "work")} == {1}
    finally:
        docker("start" if how == "stop" else "unpause", *victims)


def test_every_expression_of_every_rule_returns_data(stack: Stack):
    server = prometheus(stack)
    silent = [name for name in metric_contract.recorded_metrics(ROOT) if not server.query(name)]
    assert silent == [], "recording rules that record nothing"
