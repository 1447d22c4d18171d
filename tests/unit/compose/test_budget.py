"""Memory, database connections, worker slots and time-outs add up at the default scale."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from airflow_ha import result_database
from airflow_ha.task_process import suspension
from ops.services import MAX_INSTANCES
from ops.setting_checks import SUSPENSION_SECONDS
from tests.unit.compose.model import COMPOSE, CONFIG_FILE_POSTGRES, ONE_SHOTS, compose_model

GIB, MIB = 1024**3, 1024**2

MEMORY_BUDGET = {
    ("data", "flower"): 14 * GIB + 256 * MIB,
    ("data", "flower", "observability"): 16 * GIB,
    ("data-ha", "flower", "observability"): 18 * GIB,
}
"""Sum of all limits of the core and these profiles, without one-shots: they end before the others start."""

POOLED = {
    # A sync and an async engine, each with [database] sql_alchemy_pool_size + sql_alchemy_max_overflow connections.
    "api-server": 2,
    "execution-api": 2,
    "scheduler": 2,
    "dag-processor": 2,
    "triggerer": 2,
}
AIRFLOW_POOL_SIZE, AIRFLOW_MAX_OVERFLOW = 5, 10
"""Airflow's defaults, [database] in its config.yml."""
API_THREADS = 40
"""Threads that run an API server's synchronous requests: anyio's default limiter, `to_thread` of Starlette."""
RESERVED = 20
"""Connections for health probes, `migrate`, superusers and an exporter."""


@pytest.fixture(scope="module")
def services():
    return compose_model()["services"]


def instances(service) -> int:
    return service["deploy"].get("replicas", 1)


def environment(service, name, default=None) -> str:
    return service["environment"].get(name, default)


@pytest.mark.parametrize(("profiles", "budget"), MEMORY_BUDGET.items())
def test_memory_limits_fit_the_budget(services, profiles, budget):
    limits = {
        name: instances(service) * int(service["deploy"]["resources"]["limits"]["memory"])
        for name, service in services.items()
        if name not in ONE_SHOTS and set(service.get("profiles", [])) <= set(profiles)
    }
    assert sum(limits.values()) <= budget, limits


def pool_limit(service) -> int:
    size = environment(service, "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE", AIRFLOW_POOL_SIZE)
    overflow = environment(service, "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW", AIRFLOW_MAX_OVERFLOW)
    return int(size) + int(overflow)


def test_all_pools_together_stay_under_max_connections(services):
    max_connections = re.search(r"^max_connections = (\d+)$", CONFIG_FILE_POSTGRES.read_text(), re.MULTILINE)
    assert max_connections
    connections = {
        name: instances(services[name]) * engines * pool_limit(services[name]) for name, engines in POOLED.items()
    }
    # Celery's result backend: a worker's main process stores the results, and may replace its connection; a scheduler
    # has a pool of SQLAlchemy's default size.
    connections["worker"] = instances(services["worker"]) * 2
    connections["results"] = instances(services["scheduler"]) * (5 + 10)
    assert sum(connections.values()) + RESERVED <= int(max_connections[1]), connections
    # The workers' role has room for two services of the most instances, and leaves most connections to Airflow.
    assert 2 * MAX_INSTANCES * 2 <= result_database.WORKER_CONNECTIONS <= int(max_connections[1]) / 6


def test_patroni_has_as_many_connections_as_a_single_postgres():
    """Patroni reads this setting from etcd only, so it is written twice."""
    single = re.search(r"^max_connections = (\d+)$", CONFIG_FILE_POSTGRES.read_text(), re.MULTILINE)
    patroni = yaml.safe_load((COMPOSE / "patroni/patroni.yaml").read_text())
    assert single
    assert patroni["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == int(single[1])
    assert patroni["postgresql"]["custom_conf"] == "/etc/postgresql/airflow-ha.conf"


def test_patronis_time_outs_keep_its_own_rule():
    """Otherwise a short outage of etcd costs the primary its lock."""
    dcs = yaml.safe_load((COMPOSE / "patroni/patroni.yaml").read_text())["bootstrap"]["dcs"]
    assert dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]
    assert (dcs["synchronous_mode"], dcs["failsafe_mode"]) == (True, True)


HEARTBEAT_INTERVAL = 5.0
API_TIMEOUT = 5.0
"""Airflow's defaults of `[workers] min_heartbeat_interval` and `execution_api_timeout`."""


def test_a_task_is_not_suspended_by_the_slowest_failover(services):
    """A frozen primary is replaced when its lock expires; the last heartbeat is up to one interval older."""
    dcs = yaml.safe_load((COMPOSE / "patroni/patroni.yaml").read_text())["bootstrap"]["dcs"]
    timeout = seconds(services["scheduler"], "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT")
    assert HEARTBEAT_INTERVAL + dcs["ttl"] + dcs["loop_wait"] < timeout - API_TIMEOUT


def test_a_dead_workers_tasks_run_again_within_45_seconds(services):
    """Worst case: a crash after a heartbeat; two detection intervals, and 3 s until the task is queued and started."""
    scheduler = services["scheduler"]
    interval = seconds(scheduler, "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL")
    assert seconds(scheduler, "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT") + 2 * interval + 3 < 45


def test_heartbeats_after_an_outage_come_before_a_task_is_lost(services):
    from airflow_ha.patches import confirm_lost_heartbeats

    interval = seconds(services["scheduler"], "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL")
    assert HEARTBEAT_INTERVAL + API_TIMEOUT < confirm_lost_heartbeats.CONFIRM_SECONDS
    assert interval < confirm_lost_heartbeats.COUNTED_SECONDS


@pytest.mark.parametrize("name", ["api-server", "execution-api"])
def test_an_api_servers_pool_is_larger_than_its_threads(services, name):
    assert pool_limit(services[name]) > API_THREADS


def test_one_scheduler_fills_all_slots_and_two_twice_as_many(services):
    slots = instances(services["worker"]) * int(environment(services["worker"], "AIRFLOW__CELERY__WORKER_CONCURRENCY"))
    parallelism = int(environment(services["scheduler"], "AIRFLOW__CORE__PARALLELISM"))
    assert parallelism >= slots
    assert instances(services["scheduler"]) * parallelism <= 2 * slots


def seconds(service, name) -> float:
    return float(environment(service, name))


def test_api_retries_last_longer_than_a_one_minute_outage(services):
    """Plus half a minute until all is ready. Wait n is between 1 and min(maximum, 2^n) s (wait_random_exponential)."""
    worker = services["worker"]
    maximum = seconds(worker, "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX")
    tries = int(environment(worker, "AIRFLOW__WORKERS__EXECUTION_API_RETRIES"))
    waits = [(1.0, max(1.0, min(maximum, 2.0**n))) for n in range(tries - 1)]
    expected = sum((least + most) / 2 for least, most in waits)
    deviation = sum((most - least) ** 2 / 12 for least, most in waits) ** 0.5
    assert expected - 3 * deviation > 60 + 30


def test_a_queued_tasks_token_is_accepted_as_long_as_upstream(services):
    lifetime = seconds(services["scheduler"], "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT")
    leeway = seconds(services["execution-api"], "AIRFLOW__API_AUTH__JWT_LEEWAY")
    assert lifetime + leeway == 600


def test_a_pool_process_has_a_minute_to_start(services):
    """By default Celery kills it after 4 s and starts another: on a starved host, for ever."""
    settings = json.loads(environment(services["worker"], "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"))
    assert settings["worker_proc_alive_timeout"] >= 60


def test_a_suspension_ends_before_the_tasks_token_is_refused(services):
    """Upstream reissues a token at a heartbeat in the last fifth of its life (JWTReissueMiddleware)."""
    execution_api, worker = services["execution-api"], services["worker"]
    lifetime = float(environment(execution_api, "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME", "600"))
    accepted = 0.2 * lifetime + seconds(execution_api, "AIRFLOW__API_AUTH__JWT_LEEWAY")
    lease = seconds(worker, "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT") - API_TIMEOUT
    assert lease + SUSPENSION_SECONDS[1] + API_TIMEOUT < accepted
    assert seconds(worker, "AIRFLOW_HA_TASK_SUSPENSION_LIMIT") == suspension.DEFAULT_LIMIT_SECONDS


def test_no_setting_loads_a_patch(services):
    """Operators edit these settings; airflow_local_settings loads the patches."""
    settings = json.loads(environment(services["worker"], "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"))
    assert not settings.keys() & {"imports", "worker_consumer"}
    for service in services.values():
        assert not any("airflow_ha.patches" in str(value) for value in (service.get("environment") or {}).values())
