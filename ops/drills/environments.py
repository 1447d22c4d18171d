"""Where drills are held: a stack that runs under their load, the users' own or a stock one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ops import data_tier
from ops.clients.airflow import connect
from ops.drills import ledger
from ops.drills.catalogue import Victim, nodes, primary
from ops.drills.runner import LOAD_DAG, WHOLE_SECONDS, conduct, containers
from ops.errors import StackError
from ops.project import dags_folder
from ops.stock_airflow import stock
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ops.drills.catalogue import Drill
    from ops.drills.runner import Outcome
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
"""What does in a stock Airflow what a service does here."""
STOCK_SLOTS: Final = "8"
"""Of each worker, as many as here."""
STOCK_PATIENCE: Final = 1500.0
"""Seconds for a run: a lost message is looked for after 600 s, and again after as many."""
STOCK_WHOLE_SECONDS: Final = 600.0
LADEN_KEY: Final = "drill:laden"
LADEN_FIELDS: Final = 100_000
"""In one script, which Redis runs in some tenths of a second."""
LADEN_SCRIPT: Final = "for number = 1, ARGV[1] do redis.call('hset', KEYS[1], ARGV[2] .. number, '') end"
LADEN_BYTES: Final = 40_000_000
"""Of commands in Redis' file: it loads them for about a second, and rewrites the file only beyond 64 MB."""


@contextmanager
def on_stack(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None]
) -> Iterator[Callable[[Drill], Outcome]]:
    """Holds drills on a stack that is up, which has the load's DAG for as long as the block lasts.

    Args:
        project: The stack.
        settings: Its .env.
        report: Shows a line to people.
    """
    api = connect(project, settings, report)
    folder, name = dags_folder(project, settings), settings["COMPOSE_PROJECT_NAME"]
    with (
        ledger.keeping(name, settings["POSTGRES_IMAGE"]) as book,
        LOAD_DAG.in_place(folder, api, report, keep_runs=True),
    ):

        def hold(drill: Drill) -> Outcome:
            with much_to_load(name, report) if drill.laden else nullcontext():
                return conduct(drill, project, settings, api, book, report)

        yield hold


@contextmanager
def much_to_load(name: str, report: Callable[[str], None]) -> Iterator[None]:
    """The Redis primary has a file of LADEN_BYTES for as long as the block lasts.

    Args:
        name: The compose project's.
        report: Shows a line to people.

    Raises:
        StackError: Its file does not grow.
    """
    wait(lambda: bool(containers(name, primary("redis"))), WHOLE_SECONDS, "there is a Redis primary", report)
    [redis] = containers(name, primary("redis"))
    try:
        while (size := file_bytes(redis)) < LADEN_BYTES:
            data_tier.ask_redis(redis, "eval", LADEN_SCRIPT, "1", LADEN_KEY, str(LADEN_FIELDS), f"{size}:")
            if file_bytes(redis) <= size:
                raise StackError(f"Redis' file stays at {size} bytes", hint="./ops/stack logs redis-1 redis-2 redis-3")
        yield
    finally:
        for redis in containers(name, primary("redis")):
            data_tier.ask_redis(redis, "unlink", LADEN_KEY)
        for redis in containers(name, nodes("redis")):
            data_tier.ask_redis(redis, "bgrewriteaof")


def file_bytes(redis: str) -> int:
    """Of the commands that a Redis would load, 0 when it does not say: its append-only file.

    Args:
        redis: Its container.
    """
    answer = data_tier.ask_redis(redis, "info", "persistence") or ""
    return int(data_tier.info(answer).get("aof_current_size", 0))


@contextmanager
def on_stock(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None]
) -> Iterator[Callable[[Drill], Outcome]]:
    """Holds drills on a stock Airflow, which is there for as long as the block lasts; see on_stack."""
    with stock(
        project, settings, report, dags=[LOAD_DAG.path], dag_ids=LOAD_DAG.ids, WORKER_CONCURRENCY=STOCK_SLOTS
    ) as other:
        # No profile: it tells nobody anything.
        own = {**settings, "COMPOSE_PROJECT_NAME": other.name, "COMPOSE_PROFILES": ""}
        with ledger.keeping(other.name, settings["POSTGRES_IMAGE"], network="default") as book:
            yield lambda drill: conduct(
                on_its_services(drill), other.project, own, other.api, book, report, patience=STOCK_PATIENCE
            )


def has_stock(drill: Drill) -> bool:
    """Whether a stock Airflow has what a drill strikes."""
    return not drill.laden and all(stock_victim(victim) for victim in (*drill.victims, *drill.behind))


def on_its_services(drill: Drill) -> Drill:
    """The same fault for a stock Airflow, which has promised nothing."""
    victims = tuple(dict.fromkeys(other for victim in drill.victims if (other := stock_victim(victim))))
    return replace(
        drill, victims=victims, deadline=STOCK_PATIENCE, whole_again=STOCK_WHOLE_SECONDS, alert=None, may_alert=()
    )


def stock_victim(victim: Victim) -> Victim | None:
    """Its counterpart; None where there is none, as of a replica."""
    service = STOCK_SERVICES.get(victim.service)
    return Victim(service, victim.count) if service and victim.role != "replica" else None
