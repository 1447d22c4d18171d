"""A DAG whose runs fail if their conf sets it, until the Variable tests_fixed is set."""

from datetime import UTC, datetime

from airflow.sdk import Variable, dag, get_current_context, task


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=4,
    params={"fail": False},
    default_args={"owner": "tests", "retries": 0},
    tags=["tests"],
)
def three_in_ten():
    @task
    def work() -> None:
        if get_current_context()["params"]["fail"] and Variable.get("tests_fixed", default="no") == "no":
            raise RuntimeError("this run is meant to fail")

    work()


three_in_ten()
