"""Tasks that take more than their share of a worker; test_trust_boundaries_quotas.py runs them."""

import time
from datetime import UTC, datetime

from airflow.sdk import dag, task

SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {"owner": "tests", "retries": 0},
    "max_active_tasks": 32,
    "tags": ["tests"],
}


@dag(**SETTINGS)
def memory_quota():
    @task
    def harmless(size: int) -> int:
        """Hold more memory than any process of the leak beside it: the kernel would kill this one."""
        kept = bytearray(size)
        time.sleep(30)
        return len(kept)

    @task
    def leak() -> None:
        """Leak in many small processes, 200 MB each second: the limit is checked every 2 s."""
        import os

        for _ in range(200):
            if not os.fork():
                kept = bytearray(50_000_000)
                time.sleep(60)
                os._exit(len(kept) % 2)
            time.sleep(0.25)

    # Enough for both workers.
    harmless.expand(size=[200_000_000] * 4), leak()


@dag(**SETTINGS)
def process_quota():
    @task
    def harmless(number: int) -> int:
        """Run beside the bomb, and start a process after it."""
        import subprocess

        time.sleep(30)
        subprocess.run(["true"], check=True)
        return number

    @task.bash
    def bomb() -> str:
        """Fork without end, in sessions of their own; the task itself waits."""
        return 'sleep 3; bomb() { bomb | bomb & }; setsid bash -c "$(declare -f bomb); bomb"; sleep 60'

    harmless.expand(number=[1, 2, 3, 4]), bomb()


@dag(**SETTINGS)
def disk_quota():
    @task
    def fill_artifacts() -> None:
        """Write 100 MB each second into a volume that outlives the task."""
        from pathlib import Path

        with Path("/opt/airflow/artifacts/disk_quota").open("wb") as file:
            for _ in range(200):
                file.write(b"x" * 10_000_000)
                time.sleep(0.1)

    fill_artifacts()


memory_quota(), process_quota(), disk_quota()
