"""One small DAG for each behaviour that users expect of Airflow; run by test_airflow_behaviour.py."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import dag, get_current_context, task

SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {"owner": "tests", "retries": 2, "retry_delay": timedelta(seconds=1)},
    "tags": ["tests"],
}


@dag(**SETTINGS)
def retried():
    @task
    def succeed_at_the_third_try() -> int:
        number = int(get_current_context()["ti"].try_number)
        if number < 3:
            raise RuntimeError(f"try {number} is meant to fail")
        return number

    succeed_at_the_third_try()


@dag(**SETTINGS, params={"way": "left"})
def branching():
    @task.branch
    def choose() -> str:
        return str(get_current_context()["params"]["way"])

    @task
    def left() -> None: ...

    @task
    def right() -> None: ...

    choose() >> [left(), right()]


@dag(**SETTINGS)
def deferring():
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=20), deferrable=True)


@dag(**SETTINGS, max_active_tasks=32)
def mapped():
    @task
    def numbers() -> list[int]:
        return list(range(200))

    @task
    def square(number: int) -> int:
        return number * number

    @task
    def total(squares: list[int]) -> int:
        return sum(squares)

    total(square.expand(number=numbers()))


@dag(**SETTINGS, max_active_tasks=32)
def pooled():
    @task(pool="tests_two_slots")
    def work(number: int) -> int:
        time.sleep(1)
        return number

    work.expand(number=list(range(8)))


@dag(**SETTINGS)
def too_slow():
    @task(execution_timeout=timedelta(seconds=2), retries=0)
    def sleep_on() -> None:
        time.sleep(60)

    sleep_on()


@dag(**SETTINGS)
def killed():
    @task
    def kill_the_first_try() -> int:
        number = int(get_current_context()["ti"].try_number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    kill_the_first_try()


@dag(**SETTINGS)
def large_xcom():
    @task
    def return_mebibyte() -> str:
        return "x" * 2**20

    @task
    def measure(text: str) -> int:
        return len(text)

    measure(return_mebibyte())


@dag(**{**SETTINGS, "schedule": "@daily"})
def daily():
    @task
    def day() -> str:
        return get_current_context()["logical_date"].date().isoformat()

    day()


@dag(**SETTINGS)
def clearable():
    @task
    def first() -> None: ...

    @task
    def second() -> None: ...

    first() >> second()


@dag(**SETTINGS)
def printing():
    @task
    def print_line() -> None:
        print("a line of this task's log")

    print_line()


for make in (retried, branching, deferring, mapped, pooled, too_slow, killed, large_xcom, daily, clearable, printing):
    make()
