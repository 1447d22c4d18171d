"""A load for tests: mapped tasks that take a given time. `parity` is the same again, for the test that counts alone."""

import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task


def load():
    @task
    def numbers() -> list[int]:
        return list(range(get_current_context()["params"]["tasks"]))

    @task
    def work(number: int) -> int:
        context = get_current_context()
        params = context["params"]
        is_retry = context["ti"].try_number > 1 and params["retry_seconds"] is not None
        time.sleep(params["retry_seconds"] if is_retry else params["seconds"])
        return number

    work.expand(number=numbers())


for name in ("load", "parity"):
    dag(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_tasks=200,
        max_active_runs=8,
        params={"tasks": 30, "seconds": 1.0, "retry_seconds": None},
        default_args={"owner": "tests", "retries": 3, "retry_delay": timedelta(seconds=1)},
        tags=["tests"],
    )(load)()
