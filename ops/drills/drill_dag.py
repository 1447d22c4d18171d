"""The load of a drill: short tasks without pause and a few long ones; each writes what it does into the ledger.

The ledger is a Postgres of its own (ops/drills/ledger.py): no drill strikes it, so what it holds is what happened.
"""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

import socket
import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task

ALIVE_SECONDS = 1.5
PATIENCE = 600.0
"""Seconds that a task goes on trying to reach the ledger: its own network may be the one that is cut."""


def tell(event: str) -> None:
    """Adds a line to the ledger; the time is the ledger's own."""
    import psycopg2

    context = get_current_context()
    ti, ledger = context["ti"], context["params"]["ledger"]
    row = (context["run_id"], ti.task_id, ti.map_index, ti.try_number, event, socket.gethostname())
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = psycopg2.connect(host=ledger, user="postgres", dbname="postgres", connect_timeout=3)
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO ledger (run, task, number, attempt, event, host) VALUES (%s, %s, %s, %s, %s, %s)",
                        row,
                    )
                return
            finally:
                connection.close()
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=64,
    max_active_runs=2,
    params={"ledger": "drill-ledger", "short": 180, "short_seconds": 1.0, "long": 4, "long_seconds": 60.0},
    default_args={"owner": "drills", "retries": 5, "retry_delay": timedelta(seconds=1)},
    tags=["drill"],
)
def drill() -> None:
    """Two streams side by side."""

    @task
    def numbers(kind: str) -> list[int]:
        return list(range(int(get_current_context()["params"][kind])))

    # A few at a time: a steady stream, whose gaps are the interruption that people feel.
    @task(max_active_tis_per_dagrun=4)
    def short(number: int) -> None:
        tell("start")
        time.sleep(get_current_context()["params"]["short_seconds"])
        tell("end")

    @task
    def long(number: int) -> None:
        tell("start")
        ends = time.monotonic() + get_current_context()["params"]["long_seconds"]
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(ALIVE_SECONDS, left))
            # So that an attempt that goes on beside its successor is seen even if it never ends.
            tell("alive")
        tell("end")

    short.expand(number=numbers.override(task_id="short_numbers")("short"))
    long.expand(number=numbers.override(task_id="long_numbers")("long"))


drill()
