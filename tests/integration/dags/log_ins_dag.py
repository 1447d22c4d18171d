"""A task that searches for its worker's log-ins to Redis and Postgres, for test_trust_boundaries_broker.py."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import Context, dag, task


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    default_args={"owner": "tests"},
    tags=["tests"],
)
def finds_log_ins():
    @task
    def search(**context: Context) -> dict[str, object]:
        """Return what this process can read, find in its memory and reach.

        The conf has each password in two halves, so that memory does not contain them as a whole.
        """
        import ctypes
        import os
        import socket
        from pathlib import Path

        # A task's process is not dumpable, so /proc/self/mem is root's; the task itself can undo that.
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE

        def reason(action):
            try:
                return action()
            except OSError as error:
                return error.strerror

        halves = [[half.encode() for half in halves] for halves in context["dag_run"].conf["halves"]]
        main = int(Path(f"/proc/{os.getppid()}/status").read_text().split("PPid:")[1].split()[0])
        files = list(Path("/run/secrets").iterdir())
        found, peers = 0, []
        with Path("/proc/self/mem").open("rb", 0) as memory, Path("/proc/self/maps").open() as maps:
            for line in maps.readlines():
                if " rw-p " in line and "[v" not in line:
                    start, end = (int(address, 16) for address in line.split()[0].split("-"))
                    memory.seek(start)
                    content = memory.read(end - start)
                    for first, second in halves:
                        at = content.find(first)
                        while at >= 0:
                            found += content.startswith(second, at + len(first))
                            at = content.find(first, at + 1)
        for file in list(Path("/proc/self/fd").iterdir()):
            try:
                with socket.socket(fileno=os.dup(int(file.name))) as copy:
                    peers.append(str(copy.getpeername()[1]))
            except (OSError, IndexError):
                continue
        with socket.create_connection(("redis", 6379), timeout=5) as redis:
            redis.sendall(b"PING\r\n")
            answer = redis.recv(100).decode()
        return {
            "files": {file.name: reason(lambda file=file: file.open() and "read") for file in files},
            "in memory": found,
            "memory of the worker": reason(lambda: Path(f"/proc/{main}/mem").open("rb") and "open"),
            "signal to the worker": reason(lambda: os.kill(main, 0) or "sent"),
            "connections": sorted(set(peers) & {"6379", "26379", "5432"}),
            "redis": answer,
        }

    search()


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    default_args={"owner": "tests", "retries": 1, "retry_delay": timedelta(seconds=1)},
    tags=["tests"],
)
def waits_for_a_file():
    @task
    def wait(**context: Context) -> None:
        """Wait in the first try, until the scheduler ends it."""
        import time

        if context["ti"].try_number == 1:
            time.sleep(300)

    wait()


finds_log_ins()
waits_for_a_file()
