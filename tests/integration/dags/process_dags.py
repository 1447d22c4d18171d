"""Tasks whose process ends in another way than by itself, or leaves something; test_task_process.py runs them."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, task

CALLED = (Path("/opt/airflow/artifacts/called"), Path("/tmp/called"))
"""One file for each call of a callback: on the workers' volume, or in the dag-processor, which has no other place."""


def note(kind: str, context) -> None:
    ti = context["ti"]
    called = next(folder for folder in CALLED if os.access(folder.parent, os.W_OK))
    called.mkdir(exist_ok=True, mode=0o777)
    name = f"{ti.run_id}.{ti.task_id}.{kind}.{ti.try_number}"
    (called / "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)).touch()


def failed(context) -> None:
    note("failed", context)


def retried(context) -> None:
    note("retried", context)


SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {
        "owner": "tests",
        "retries": 0,
        "retry_delay": timedelta(seconds=1),
        "on_failure_callback": failed,
        "on_retry_callback": retried,
    },
    "max_active_tasks": 32,
    "tags": ["tests"],
}


@dag(**SETTINGS)
def task_ends():
    @task
    def harmless(number: int) -> int:
        time.sleep(20)
        return number

    @task(retries=1)
    def hog(ti=None) -> None:
        kept = []
        while ti.try_number == 1:
            kept.append(b"x" * 50_000_000)

    @task(retries=1)
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def segfault() -> None:
        import ctypes

        ctypes.string_at(0)

    @task
    def exits() -> None:
        os._exit(3)

    @task
    def exits_with_0() -> None:
        os._exit(0)

    @task
    def odd_error() -> None:
        raise ValueError("caf\udce9")

    harmless.expand(number=[1, 2])
    hog(), killed(), segfault(), exits(), exits_with_0(), odd_error()


@dag(**SETTINGS)
def task_leaves():
    @task.bash
    def processes() -> str:
        # The first has left its session, the others have also lost their parent. (Bash's own output they must not hold:
        # the operator reads that to its end.)
        doubly = "(setsid sh -c 'sleep 30003 & sleep 30004' &)"
        return f"(nohup sleep 30001 & setsid sleep 30002 & {doubly}) > /dev/null 2>&1; echo left"

    @task
    def files() -> str:
        import tempfile

        folder = Path(tempfile.mkdtemp())
        (folder / "file").write_text("x")
        folder.chmod(0o500)
        return str(Path.cwd())

    @task
    def fills(mebibytes: int = 2000) -> None:
        for number in range(mebibytes):
            Path(f"part-{number}").write_bytes(b"x" * 2**20)
        time.sleep(10)

    processes(), files(), fills()


@dag(**SETTINGS)
def task_uses():
    @task
    def processes() -> list[int]:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with multiprocessing.Pool(2) as pool:
            forked = pool.map(abs, [-1, -2])
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            return [*forked, *pool.map(abs, [-3])]

    @task
    def joblib() -> list[int]:
        from joblib import Parallel, delayed

        return list(Parallel(n_jobs=2)(delayed(abs)(number) for number in [-1, -2]))

    @task
    def places() -> list[str]:
        import tempfile

        Path("here").write_text("x")
        Path("/tmp/t18_probe").write_text("x")
        Path("/tmp/t18_probe").unlink()
        read = [path.name for path in Path("dags").glob("process_dags.py")]
        return [*read, str(Path(tempfile.gettempdir()) == Path.cwd())]

    @task.virtualenv(requirements=[], system_site_packages=False)
    def virtual_environment() -> str:
        import sys

        return sys.prefix

    @task.external_python(python="/usr/bin/python3")
    def other_interpreter() -> str:
        import sys

        print("größe 日本")
        return sys.executable

    @task.bash
    def bash() -> str:
        return "touch here && echo größe 日本"

    processes(), joblib(), places(), virtual_environment(), other_interpreter(), bash()


task_ends(), task_leaves(), task_uses()
