"""A DAG that a worker's processes read before their first task, for what Python keeps of it (prepare_task_fork.py)."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, params={"any": 1})  # type: ignore[untyped-decorator]
def rehearsal() -> None:
    """Has what most DAGs have: a task, and a mapped one."""

    @task
    def nothing(value: int = 0) -> None:
        """Never runs."""

    nothing()
    nothing.expand(value=[1])


rehearsal()
