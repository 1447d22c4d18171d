"""Tasks for queues of one's own: `own_queue` for one that gets a worker, `misspelt_queue` for one that never does."""

from datetime import UTC, datetime

from airflow.sdk import DAG, task

QUEUES = {"own_queue": ("gpu", 6), "misspelt_queue": ("gqu", 40)}

for name, (queue, tasks) in QUEUES.items():
    with DAG(
        name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_tasks=64,
        default_args={"owner": "tests", "retries": 0},
        tags=["tests"],
    ):
        # Before all others in the order of priority, so that they would be first to take every slot.
        @task(queue=queue, priority_weight=100)
        def work(number: int) -> int:
            return number

        work.expand(number=list(range(tasks)))
