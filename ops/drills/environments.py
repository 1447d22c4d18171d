"""The stacks that drills run on: the running stack, or a stock Airflow started for the comparison."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ops import data_tier
from ops.clients.airflow import connect
from ops.drills.catalogue import Target, all_nodes, primary
from ops.drills.ledger import start_ledger
from ops.drills.runner import HEALTHY_SECONDS, LOAD_DAG, Environment, run_drill, target_containers
from ops.errors import StackError
from ops.project import dags_folder
from ops.stock_airflow import stock
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ops.drills.catalogue import Drill
    from ops.drills.evaluate import Outcome
    from ops.project import Project

STOCK_SERVICES: Final = {
    "scheduler": "airflow-scheduler",
    "api-server": "airflow-apiserver",
    "execution-api": "airflow-apiserver",
    "gateway": "airflow-apiserver",
    "worker": "airflow-worker",
    "triggerer": "airflow-triggerer",
    "dag-processor": "airflow-dag-processor",
    "patroni": "postgres",
    "postgres": "postgres",
    "redis": "redis",
}
"""The service of a stock Airflow that does the work of a service of the stack."""
STOCK_SLOTS: Final = "8"
"""Slots of a stock worker: as many as one of the stack has."""
STOCK_RUN_SECONDS: Final = 1500.0
"""Longest run on a stock Airflow. It checks for lost messages after 600 s, and again 600 s later."""
STOCK_HEALTHY_SECONDS: Final = 600.0
AOF_KEY: Final = "drill:large-aof"
AOF_FIELDS: Final = 100_000
"""Fields that one script sets, in some tenths of a second."""
AOF_SCRIPT: Final = "for number = 1, ARGV[1] do redis.call('hset', KEYS[1], ARGV[2] .. number, '') end"
AOF_BYTES: Final = 40_000_000
"""Size of a large AOF. Redis loads it in about a second, and rewrites it only above 64 MB."""


@contextmanager
def prepare_stack(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None]
) -> Iterator[Callable[[Drill], Outcome]]:
    """Add the ledger and the load's DAG to a running stack, and yield the function that runs a drill on it.

    Args:
        project: The stack's project.
        settings: The stack's .env.
        report: Prints a line of progress.
    """
    api = connect(project, settings, report)
    folder, name = dags_folder(project, settings), settings["COMPOSE_PROJECT_NAME"]
    with (
        start_ledger(name, settings["POSTGRES_IMAGE"]) as ledger,
        LOAD_DAG.in_place(folder, api, report, keep_runs=True),
    ):
        environment = Environment(project, settings, api, ledger, report)

        def run(drill: Drill) -> Outcome:
            with large_aof(name, report) if drill.large_aof else nullcontext():
                return run_drill(drill, environment)

        yield run


@contextmanager
def large_aof(name: str, report: Callable[[str], None]) -> Iterator[None]:
    """Grow the AOF of the Redis primary to AOF_BYTES for the duration of the block.

    Args:
        name: The compose project's name.
        report: Prints a line of progress.

    Raises:
        StackError: The AOF does not grow.
    """
    wait(lambda: bool(target_containers(name, primary("redis"))), HEALTHY_SECONDS, "there is a Redis primary", report)
    [container] = target_containers(name, primary("redis"))
    try:
        while (size := aof_bytes(container)) < AOF_BYTES:
            data_tier.ask_redis(container, "eval", AOF_SCRIPT, "1", AOF_KEY, str(AOF_FIELDS), f"{size}:")
            if aof_bytes(container) <= size:
                raise StackError(
                    f"cannot grow the AOF of Redis: it stays at {size} bytes",
                    hint="run ./ops/stack logs redis-1 redis-2 redis-3",
                )
        yield
    finally:
        # The primary may be another node than before.
        for container in target_containers(name, primary("redis")):
            data_tier.ask_redis(container, "unlink", AOF_KEY)
        for container in target_containers(name, all_nodes("redis")):
            data_tier.ask_redis(container, "bgrewriteaof")


def aof_bytes(container: str) -> int:
    """Return the size of a Redis container's AOF; 0 if Redis does not answer."""
    answer = data_tier.ask_redis(container, "info", "persistence") or ""
    return int(data_tier.info(answer).get("aof_current_size", 0))


@contextmanager
def prepare_stock(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None]
) -> Iterator[Callable[[Drill], Outcome]]:
    """Start a stock Airflow for the duration of the block, and yield the function that runs a drill on it.

    See `prepare_stack` for the arguments.
    """
    with stock(
        project, settings, report, dags=[LOAD_DAG.path], dag_ids=LOAD_DAG.ids, WORKER_CONCURRENCY=STOCK_SLOTS
    ) as airflow:
        # The stock Airflow has no profiles, and so no alerting.
        stock_settings = {**settings, "COMPOSE_PROJECT_NAME": airflow.name, "COMPOSE_PROFILES": ""}
        with start_ledger(airflow.name, settings["POSTGRES_IMAGE"], network="default") as ledger:
            environment = Environment(
                airflow.project, stock_settings, airflow.api, ledger, report, run_timeout=STOCK_RUN_SECONDS
            )
            yield lambda drill: run_drill(stock_drill(drill), environment)


def exists_on_stock(drill: Drill) -> bool:
    """Return whether a stock Airflow has all targets of a drill."""
    return (
        not drill.large_aof
        and drill.fault != "replace"
        and all(stock_target(target) for target in (*drill.targets, *drill.lagging))
    )


def stock_drill(drill: Drill) -> Drill:
    """Return the same fault for a stock Airflow, which promises nothing: long limits and no alerts."""
    targets = tuple(dict.fromkeys(other for target in drill.targets if (other := stock_target(target))))
    return replace(
        drill,
        targets=targets,
        deadline=STOCK_RUN_SECONDS,
        healthy_within=STOCK_HEALTHY_SECONDS,
        alert=None,
        allowed_alerts=(),
    )


def stock_target(target: Target) -> Target | None:
    """Return the target on a stock Airflow; None if it has none, as for a replica."""
    service = STOCK_SERVICES.get(target.service)
    return Target(service, target.count) if service and target.role != "replica" else None
