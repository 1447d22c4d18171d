"""The DAGs of the benches: two tasks in sequence, a fan-out, a fan-out into a closed pool, and ordinary data tasks."""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, dag, get_current_context, task

POOL = "bench_closed"

SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    # The slots and the schedulers are measured, not a limit of the DAG.
    "max_active_tasks": 20_000,
    "max_active_runs": 20,
    # A lost try is retried at once; its try number shows the loss.
    "default_args": {"owner": "bench", "retries": 3, "retry_delay": timedelta(seconds=1)},
    "tags": ["bench"],
}


@dag(dag_id="bench_pair", **SETTINGS)
def pair() -> None:
    """Two tasks in sequence."""

    @task
    def first() -> None:
        pass

    @task
    def second() -> None:
        pass

    first() >> second()


@task
def numbers() -> list[int]:
    """One number for each task, as many as the run's parameter `tasks`."""
    return list(range(int(get_current_context()["params"]["tasks"])))


def fan_out(pool: str) -> None:
    """Mapped tasks that sleep; parameters `tasks` and `seconds`."""

    @task(pool=pool)
    def work(number: int) -> None:
        time.sleep(float(get_current_context()["params"]["seconds"]))

    work.expand(number=numbers())


@dag(dag_id="bench_ordinary", params={"tasks": 16, "megabytes": 200}, **SETTINGS)
def ordinary() -> None:
    """Mapped tasks that import scikit-learn and hold memory for 20 s; parameters `tasks` and `megabytes`."""

    @task
    def work(number: int) -> int:
        import sklearn.ensemble  # noqa: F401 (its memory is the load)

        data = bytearray(b"x" * (int(get_current_context()["params"]["megabytes"]) * 1_000_000))
        time.sleep(20)
        return len(data)

    work.expand(number=numbers())


pair()
ordinary()
for name, pool in (("bench_fanout", "default_pool"), ("bench_held", POOL)):
    with DAG(dag_id=name, params={"tasks": 100, "seconds": 0.0}, **SETTINGS):
        fan_out(pool)
