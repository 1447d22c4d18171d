"""Common DAGs of a data team: tasks that need 200 MB, temporary files, own triggers, own timetables."""

from __future__ import annotations

import pendulum
from airflow.sdk import BaseOperator, dag, task

DEFAULTS = {"retries": 0, "owner": "tests"}
SLOTS = 16


@dag(schedule=None, default_args=DEFAULTS, max_active_tasks=2 * SLOTS)
def data_tasks():
    """Run a task for each worker slot; each imports scikit-learn and holds 200 MB."""

    @task
    def hold(number: int) -> int:
        import time

        import sklearn.ensemble  # noqa: F401

        kept = bytearray(b"x" * 200_000_000)
        time.sleep(20)
        return len(kept)

    hold.expand(number=list(range(SLOTS)))


@dag(schedule=None, default_args=DEFAULTS)
def temporary_files():
    """A temporary file of 1.2 GB beside tasks that do little, and a file in each place that tasks expect to write."""

    @task
    def little(number: int) -> int:
        import time

        time.sleep(10)
        return number

    @task
    def large_file() -> int:
        import tempfile

        with tempfile.NamedTemporaryFile() as file:
            for _ in range(1200):
                file.write(b"x" * 1_000_000)
            return file.seek(0, 2)

    @task
    def places() -> list[str]:
        import subprocess
        import sys
        import tempfile
        from pathlib import Path

        written = []
        for folder in (Path.home() / ".cache/acme", Path(tempfile.gettempdir()), Path("/tmp"), Path("/dev/shm")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "probe").write_text("x")
            (folder / "probe").unlink()
            written.append(str(folder))
        script = Path(tempfile.gettempdir()) / "script"
        script.write_text(f"#!{sys.executable}\nprint('ran')\n")
        script.chmod(0o755)
        return [*written, subprocess.run([script], check=True, capture_output=True, text=True).stdout.strip()]

    little.expand(number=list(range(4)))
    large_file()
    places()


class WaitForAcme(BaseOperator):
    def execute(self, context):
        from acme_triggers import AcmeTrigger

        self.defer(trigger=AcmeTrigger("from acme"), method_name="resume")

    def resume(self, context, event: str) -> str:
        return event


def _acme_timetable():
    from acme_timetable import AcmeTimetable

    return AcmeTimetable()


@dag(
    schedule=_acme_timetable(), start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False, default_args=DEFAULTS
)
def own_plugins():
    WaitForAcme(task_id="wait_for_acme")


data_tasks(), temporary_files(), own_plugins()
