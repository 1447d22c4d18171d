"""The loads of the benches: a pair of tasks, a fan-out, one that waits for a pool, and ordinary data tasks."""

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
    # No limit of the DAG's own: the slots and the scheduler are what is measured.
    "max_active_tasks": 20_000,
    "max_active_runs": 20,
    # A lost attempt is run again at once, and is seen by its number.
    "default_args": {"owner": "bench", "retries": 3, "retry_delay": timedelta(seconds=1)},
    "tags": ["bench"],
}


@dag(dag_id="bench_pair", **SETTINGS)
def pair() -> None:
    """One task after the other."""

    @task
    def first() -> None:
        pass

    @task
    def second() -> None:
        pass

    first() >> second()


@task
def numbers() -> list[int]:
    """One for each task that the run asks for."""
    return list(range(int(get_current_context()["params"]["tasks"])))


def fan_out(pool: str) -> None:
    """As many tasks as the run says, each for as long as it says."""

    @task(pool=pool)
    def work(number: int) -> None:
        time.sleep(float(get_current_context()["params"]["seconds"]))

    work.expand(number=numbers())


@dag(dag_id="bench_ordinary", params={"tasks": 16, "megabytes": 200}, **SETTINGS)
def ordinary() -> None:
    """As many tasks as the run says, each of which imports scikit-learn and holds so many MB for 20 s."""

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
