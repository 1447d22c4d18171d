"""DAGs with findings of the monitoring DAG."""

from datetime import UTC, datetime

from airflow.sdk import dag, task

SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "is_paused_upon_creation": False,
    "default_args": {"owner": "tests", "retries": 0},
    "tags": ["tests"],
}
FAILING = 6


@dag(**SETTINGS)
def pools_that_never_take() -> None:
    @task(pool="tests_missing")
    def missing(number: int) -> None:
        pass

    @task(pool="tests_narrow", pool_slots=50)
    def too_wide() -> None:
        pass

    @task(pool="tests_closed")
    def closed() -> None:
        pass

    missing.expand(number=list(range(40)))
    too_wide()
    closed()


def define_failing_dag(number: int) -> None:
    @dag(dag_id=f"one_cause_{number}", **SETTINGS)
    def one_cause() -> None:
        @task
        def load() -> None:
            raise ConnectionError("warehouse is unreachable: " + "x" * 3000)

        load()

    one_cause()


pools_that_never_take()
for each in range(FAILING):
    define_failing_dag(each)
