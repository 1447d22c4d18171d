"""The load of a drill: many short tasks and a few long ones. Each task writes its events into the ledger.

The ledger is a separate Postgres (ops/drills/ledger.py) that no drill targets, so its entries are complete.
"""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

import socket
import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task

ALIVE_SECONDS = 1.5
RETRY_SECONDS = 600.0
"""Seconds that a task retries to reach the ledger: a drill may have cut the task's own network."""


def record(event: str) -> None:
    """Insert an entry into the ledger, which adds the time by its own clock."""
    import psycopg2

    context = get_current_context()
    ti, ledger = context["ti"], context["params"]["ledger"]
    row = (context["run_id"], ti.task_id, ti.map_index, ti.try_number, event, socket.gethostname())
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            connection = psycopg2.connect(host=ledger, user="postgres", dbname="postgres", connect_timeout=3)
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO ledger (run, task, map_index, try_number, event, host)"
                        " VALUES (%s, %s, %s, %s, %s, %s)",
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
    """Run many short tasks, four at a time, beside a few long ones."""

    @task
    def numbers(kind: str) -> list[int]:
        return list(range(int(get_current_context()["params"][kind])))

    # Four at a time complete steadily, so a gap between completions is the interruption that users notice.
    @task(max_active_tis_per_dagrun=4)
    def short(number: int) -> None:
        record("start")
        time.sleep(get_current_context()["params"]["short_seconds"])
        record("end")

    @task
    def long(number: int) -> None:
        record("start")
        ends = time.monotonic() + get_current_context()["params"]["long_seconds"]
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(ALIVE_SECONDS, left))
            # This entry reveals a try that continues beside the next one, even if it never ends.
            record("alive")
        record("end")

    short.expand(number=numbers.override(task_id="short_numbers")("short"))
    long.expand(number=numbers.override(task_id="long_numbers")("long"))


drill()
