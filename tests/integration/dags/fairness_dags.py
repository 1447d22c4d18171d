"""Runs that wait, runs that can go on beside them, and assets; tests/integration/test_scheduling_fairness.py."""

import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable, dag, get_current_context, task

SETTINGS = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    "tags": ["tests"],
}
FIRST = Asset("tests://fairness/first")
SECOND = Asset("tests://fairness/second")


@dag(**SETTINGS, schedule=None, max_active_runs=2000)
def fairness_waiting():
    @task
    def after() -> None: ...

    wait = PythonSensor(
        task_id="wait",
        python_callable=lambda: False,
        mode="reschedule",
        poke_interval=1800,
        retries=1,
        retry_delay=timedelta(hours=1),
    )
    wait >> after()


def daily():
    @task
    def work() -> None: ...

    work()


for name in ("fairness_backfilled", "fairness_backfilled_too"):
    dag(name, **SETTINGS, schedule="@daily", max_active_runs=3)(daily)()


@dag(**SETTINGS, schedule=None)
def fairness_triggered():
    @task
    def first() -> None: ...

    @task
    def second() -> None: ...

    first() >> second()


@dag(**SETTINGS, schedule=None, max_active_tasks=32)
def fairness_producer():
    @task(outlets=[FIRST, SECOND])
    def update(number: int) -> None: ...

    update.expand(number=list(range(30)))


@dag(**SETTINGS, schedule=[FIRST], max_active_runs=2)
def fairness_consumer():
    @task
    def see() -> list[str]:
        time.sleep(1)
        events = get_current_context()["triggering_asset_events"]
        return sorted(f"{e.source_run_id}/{e.source_map_index}" for of_asset in events.values() for e in of_asset)

    see()


@dag(**SETTINGS, schedule=FIRST & SECOND, max_active_runs=1)
def fairness_consumer_of_both():
    @task
    def see() -> None: ...

    see()


@dag(**SETTINGS, schedule=FIRST | SECOND)
def fairness_consumer_of_either():
    @task
    def see() -> None: ...

    see()


@dag(
    **SETTINGS,
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("@yearly", timezone="UTC"), assets=[SECOND]),
)
def fairness_consumer_or_yearly():
    @task
    def see() -> None: ...

    see()


fairness_waiting()
fairness_triggered()
fairness_producer()
fairness_consumer()
fairness_consumer_of_both()
fairness_consumer_of_either()
fairness_consumer_or_yearly()
