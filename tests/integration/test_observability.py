"""Metrics by both ways, traces, every instance by its name; and tasks that do not care whether any of it is there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ops.dashboards.query_results import Span
from ops.dashboards.render import read_boards, unexpectedly_empty
from ops.observability import metric_contract
from ops.project import ROOT
from tests.integration.observability import attributes, spans, total
from tests.stack import Stack, docker, wait_until

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

STATSD = 'airflow_task_{}_total{{dag_id="{}", task_id="work"{}}}'
OTEL = 'otel_airflow_ti_{}_total{{dag_id="{}", task_id="work"{}}}'


def test_every_target_is_up(healthy_stack: Stack):
    def up() -> bool:
        targets = healthy_stack.prometheus.targets()
        return bool(targets) and all(target["health"] == "up" for target in targets)

    wait_until(up, timeout=60, what="every target of Prometheus is up")
    assert {target["job"] for target in healthy_stack.status()["targets"]} >= {"statsd-exporter", "otel-collector"}


@pytest.mark.parametrize("query", SEED_QUERIES)
def test_common_airflow_queries_return_data(stack: Stack, query: str):
    wait_until(lambda: stack.prometheus.query(query), timeout=150, what=f"{query} returns data", interval=2)


def test_40_tasks_count_as_40_in_statsd_and_opentelemetry(healthy_stack: Stack):
    """Use a DAG of its own: metrics of other runs may still arrive."""
    tasks, dag_id = 40, "parity"
    durations = f'{{dag_id="{dag_id}", task_id="work"}}'
    counts = {
        "statsd started": STATSD.format("start", dag_id, ""),
        "statsd succeeded": STATSD.format("finish", dag_id, ', state="success"'),
        "statsd durations": f"airflow_dag_task_duration_count{durations}",
        "otel started": OTEL.format("start", dag_id, ""),
        "otel succeeded": OTEL.format("finish", dag_id, ', state="success"'),
        "otel durations": f"otel_airflow_task_duration_seconds_count{durations}",
    }

    def now() -> dict[str, float]:
        return {name: total(healthy_stack, query) for name, query in counts.items()}

    before = now()
    run = healthy_stack.api.trigger(dag_id, tasks=tasks, seconds=0)
    assert healthy_stack.api.wait_for_run(dag_id, run, timeout=120) == "success"
    expected = {name: before[name] + tasks for name in counts}
    try:
        wait_until(lambda: now() == expected, timeout=SCRAPED_WITHIN, what=f"each count is {tasks} more")
    except AssertionError as error:
        raise AssertionError(f"{error}\nbefore: {before}\nnow:    {now()}") from None

    sums = [
        total(healthy_stack, f"airflow_dag_task_duration_sum{durations}"),
        total(healthy_stack, f"otel_airflow_task_duration_seconds_sum{durations}"),
    ]
    assert sums[0] == pytest.approx(sums[1], rel=0.01), "one way is in seconds, the other in something else"


def test_nothing_is_unmapped_in_conflict_or_malformed(stack: Stack):
    for counter in ("events_unmapped", "events_conflict", "events_error", "tag_errors", "sample_errors"):
        samples = stack.prometheus.query(f"statsd_exporter_{counter}_total")
        assert sum(float(sample["value"][1]) for sample in samples) == 0, counter


def alive(stack: Stack) -> dict[str, float]:
    """Return 1 for each live instance in the metrics, and 0 for each other one."""
    samples = stack.prometheus.query("airflow_instance_alive")
    return {sample["metric"]["airflow_instance"]: float(sample["value"][1]) for sample in samples}


@pytest.fixture
def counts(request: pytest.FixtureRequest, healthy_stack: Stack) -> Iterator[dict[str, int]]:
    """Scale to these instances for the test, and return them by service."""
    usual = {"scheduler": 2, "triggerer": 1, "worker": 2}
    wanted = {**usual, **request.param}
    if request.param:
        healthy_stack.command("scale", *(f"{service}={count}" for service, count in request.param.items()))
    yield {"dag-processor": 1, **wanted}
    if request.param:
        healthy_stack.command("scale", *(f"{service}={usual[service]}" for service in request.param))


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param({}, id="usual"),
        pytest.param({"triggerer": 2, "worker": 3}, id="scaled", marks=pytest.mark.nightly),
    ],
    indirect=True,
)
def test_a_killed_instance_changes_only_its_own_series(healthy_stack: Stack, counts: dict[str, int]):
    ids = {name: {container.id[:12] for container in healthy_stack.containers(name)} for name in counts}
    assert {name: len(instances) for name, instances in ids.items()} == counts
    instances = set().union(*ids.values())
    wait_until(
        lambda: all(alive(healthy_stack).get(instance) == 1 for instance in instances),
        timeout=60,
        what=f"each of {instances} is alive in airflow_instance_alive",
    )
    target = healthy_stack.containers("scheduler")[0]
    target.kill()
    try:
        killed = time.monotonic()
        wait_until(
            lambda: alive(healthy_stack).get(target.id[:12]) == 0, timeout=30, what="the killed scheduler is not alive"
        )
        print(f"seen after {time.monotonic() - killed:.0f} s")
        others = instances - {target.id[:12]}
        now = alive(healthy_stack)
        assert {instance: now[instance] for instance in others} == dict.fromkeys(others, 1.0)
    finally:
        target.start()


def test_a_dag_run_is_one_trace_from_the_scheduler_to_its_tasks(stack: Stack):
    run = stack.api.trigger("load", tasks=2, seconds=0)
    assert stack.api.wait_for_run("load", run, timeout=60) == "success"

    def run_spans() -> list[dict]:
        return [span for span in spans(stack) if attributes(span).get("airflow.dag_run.run_id") == run]

    def all_spans_collected() -> bool:
        # Each process hands its spans over when it likes.
        names = [span["name"].partition("[")[0] for span in run_spans()]
        return all(names.count(name) == count for name, count in expected.items())

    expected = {"dag_run.load": 1, "task_run.work": 2, "worker.work": 2, "task_run.numbers": 1, "worker.numbers": 1}
    wait_until(all_spans_collected, timeout=60, what=f"the collector has these spans: {expected}")
    trace = run_spans()
    assert len({span["traceId"] for span in trace}) == 1
    by_id = {span["spanId"]: span for span in trace}
    (root,) = [span for span in trace if not span.get("parentSpanId")]
    assert (root["name"], root["service"]) == ("dag_run.load", "airflow-scheduler")
    for worker in (span for span in trace if span["name"].startswith("worker.")):
        task = by_id[worker["parentSpanId"]]
        assert task["name"].startswith("task_run.")
        assert task["service"] == "airflow-execution-api"
        assert task["parentSpanId"] == root["spanId"]


# A frozen receiver is the harder fault: nothing refuses what is sent to it.
@pytest.mark.parametrize("how", ["pause", pytest.param("stop", marks=pytest.mark.nightly)])
def test_tasks_run_as_ever_without_telemetry(healthy_stack: Stack, how: str):
    services = ("statsd-exporter", "otel-collector", "prometheus")
    targets = [container.id for service in services for container in healthy_stack.containers(service)]
    docker(how, *targets)
    try:
        run = healthy_stack.api.trigger("load", tasks=30, seconds=0)
        assert healthy_stack.api.wait_for_run("load", run, timeout=90) == "success"
        assert {ti["try_number"] for ti in healthy_stack.api.task_instances("load", run, "work")} == {1}
    finally:
        docker("start" if how == "stop" else "unpause", *targets)


RIGHTLY_ABSENT = {
    "airflow_component_gone": "only while one is",
    "airflow_ha_backup_archive_lag_seconds": "only with the profile backup",
    "airflow_ha_backup_damaged": "only with the profile backup",
    "airflow_ha_backup_due_timestamp_seconds": "only with the profile backup",
    "airflow_ha_backup_engine_up": "only with the profile backup",
    "airflow_ha_backup_files_incomplete": "only with the profile backup",
    "airflow_ha_backup_files_up": "only with the profile backup",
    "airflow_ha_backup_repository_up": "only with the profile backup",
    "airflow_ha_backup_unverified_since_timestamp_seconds": "only with the profile backup",
    "airflow_ha_backup_verification_failed": "only with the profile backup",
    "airflow_ha_backup_verification_interval_seconds": "only with the profile backup",
    "airflow_ha_certificate_expiry_timestamp_seconds": "only with TLS=on",
    "airflow_ha_container_oom_kills": "only after one",
    "airflow_ha_container_oom_kills_total": "only after one",
    "airflow_ha_failed_callbacks": "only after one",
    "airflow_deadline_alerts_deadline_missed": "only after one was missed",
    "airflow_ha_task_killed": "only after one was",
    "airflow_ha_task_killed_total": "only after one was",
    "airflow_ha_task_limit_bytes": "only after one was",
    "airflow_ha_task_peak_bytes": "only after one was",
    "airflow_ha_unconsumed_queue_tasks": "only while a queue has no worker",
    "airflow_ha_workers_ceiling": "only with autoscaling",
    "airflow_ha_workers_floor": "only with autoscaling",
    "airflow_pool_starving_tasks": "only while a pool is full",
    "airflow_scheduler_tasks_killed_externally": "only after one was",
    "airflow_tasks_above_ceiling": "only with autoscaling",
    "airflow_task_instances_without_heartbeats_killed": "only after a worker died",
    "pg_stat_replication_pg_wal_lsn_diff": "only with replicas",
    "redis_master_link_up": "only with replicas",
    "statsd_exporter_events_conflict_total": "only after one",
    "statsd_exporter_events_error_total": "only after one",
}
"""Queried metrics that a healthy stack need not have; a unit test checks that a program would send them."""


def test_every_metric_that_a_rule_queries_exists(stack: Stack):
    expressions = metric_contract.rule_expressions(ROOT).values()
    queried = [metric_contract.queried_metrics(expression) for expression in expressions]
    names = metric_contract.recorded_metrics(ROOT).union(*(query.names for query in queried)) - RIGHTLY_ABSENT.keys()

    def absent() -> list[str]:
        return [name for name in sorted(names) if not stack.prometheus.query(f"last_over_time({name}[2h])")]

    wait_until(lambda: not absent(), timeout=90, what=f"none of these is absent: {absent()}", interval=3)


def test_every_panel_has_data_unless_empty_is_right(healthy_stack: Stack):
    """Check after the pipeline, the canary and the load have run, which the tests above wait for."""
    folder = ROOT / metric_contract.DASHBOARDS

    def silent() -> dict[str, tuple[str, ...]]:
        now = time.time()
        return unexpectedly_empty(read_boards(folder, healthy_stack.prometheus, Span(now - 300, now)))

    wait_until(lambda: not silent(), timeout=150, what=f"no panel is empty: {silent()}", interval=5)


def test_an_exporter_restart_loses_only_its_downtime(healthy_stack: Stack):
    (exporter,) = healthy_stack.containers("statsd-exporter")
    started = STATSD.format("start", "load", "")
    exporter.crash()
    wait_until(
        lambda: exporter.inspect()["State"].get("Health", {}).get("Status") == "healthy",
        timeout=60,
        what="the exporter is back",
    )
    run = healthy_stack.api.trigger("load", tasks=20, seconds=0)
    assert healthy_stack.api.wait_for_run("load", run, timeout=90) == "success"
    # The exporter's counters restarted at 0: they count only later metrics.
    wait_until(lambda: total(healthy_stack, started) == 20, timeout=SCRAPED_WITHIN, what="all 20 starts are counted")


def test_a_flood_of_10000_tags_is_reported_and_harmless(healthy_stack: Stack):
    (worker, *_) = healthy_stack.containers("worker")
    flood = (
        "from airflow_ha.telemetry.statsd import TaggedStatsClient\n"
        "client = TaggedStatsClient('statsd-exporter', 9125, 'airflow')\n"
        "import time\n"
        "for n in range(10000):\n"
        "    client.incr(f'ha_flood,n=tag{n}')\n"
        "    if n % 100 == 0: time.sleep(0.02)\n"
    )
    worker.execute("python", "-c", flood)
    series = 'count({__name__=~"airflow_ha_flood.*"})'
    flood_series = wait_until(
        lambda: total(healthy_stack, series) >= 9000 and total(healthy_stack, series),
        timeout=SCRAPED_WITHIN,
        what="the flood is in Prometheus",
    )
    assert total(healthy_stack, 'scrape_samples_scraped{job="statsd-exporter"}') >= flood_series, "the report of it"
    assert total(healthy_stack, 'up{job="statsd-exporter"}') == 1
    run = healthy_stack.api.trigger("load", tasks=10, seconds=0)
    assert healthy_stack.api.wait_for_run("load", run, timeout=60) == "success"
    # An hour of ten thousand dead series would be in the way of the tests to come.
    for container in healthy_stack.containers("statsd-exporter"):
        container.crash()


def test_a_second_backend_that_cannot_be_reached_stops_nothing(stack: Stack):
    (collector,) = stack.containers("otel-collector")
    image = collector.inspect()["Config"]["Image"]
    name = f"{stack.name}-unreachable-backend"
    docker(
        *("run", "--detach", "--name", name, "--network", f"{stack.name}_telemetry", "--user", "10001:10001"),
        *("--env", "OTLP_BACKEND_ENDPOINT=http://127.0.0.1:1", "--env", "MONITORING_ADDRESS=0.0.0.0"),
        *("--tmpfs", "/var/lib/otelcol:uid=10001,gid=10001"),
        *("--volume", f"{ROOT}/compose/otel-collector:/etc/otelcol:ro", "--entrypoint", "/otelcol-contrib", image),
        *(f"--config=/etc/otelcol/{file}.yaml" for file in ("config", "backend-on", "jaeger")),
    )
    try:
        (worker, *_) = stack.containers("worker")
        send = (
            "import os, urllib.request\n"
            f"os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://{name}:4318'\n"
            "from airflow_ha.telemetry.otel import recording\n"
            "with recording(limit=5) as meter: meter.create_gauge('airflow_ha_probe').set(42)\n"
        )
        ask = f"import urllib.request; print(urllib.request.urlopen('http://{name}:8890/metrics').read().decode())"

        def served() -> bool:
            worker.execute("python", "-c", send, check=False)
            return "otel_airflow_ha_probe" in worker.execute("python", "-c", ask, check=False).stdout

        wait_until(served, timeout=40, what="the collector serves Prometheus beside a dead backend", interval=2)
        health = f"import urllib.request; print(urllib.request.urlopen('http://{name}:13133').status)"
        assert worker.execute("python", "-c", health).stdout.strip() == "200"
    finally:
        docker("rm", "--force", "--volumes", name)
