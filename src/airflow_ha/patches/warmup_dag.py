"""A DAG that a worker imports before it forks its pool, to fill Python's caches (prepare_task_fork.py)."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, params={"any": 1})  # type: ignore[untyped-decorator]
def warmup() -> None:
    """A plain task and a mapped task, as most DAGs have."""

    @task
    def nothing(value: int = 0) -> None:
        """Do nothing; this task never runs."""

    nothing()
    nothing.expand(value=[1])


warmup()
