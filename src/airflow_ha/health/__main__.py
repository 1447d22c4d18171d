"""The probe that Docker runs: `python -S -m airflow_ha.health {http PORT PATH | scheduler | job TYPE | worker}`.

Every container runs it several times a minute, and to start Python was most of its cost: hence `-S`, which leaves out
the look at installed packages, and no import of what is not needed in order to say that all is well.

Exit codes, read by compose/health/restart-when-unhealthy.sh: 0 healthy, 1 unhealthy, 75 (EX_TEMPFAIL) during an outage
of a dependency, which a restart would not fix.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from airflow_ha.health.freshness import CONSUMPTION_FILE, CONSUMPTION_MAX_AGE, JOB_MAX_AGE

TYPE_CHECKING = False  # typing itself is among the slowest of imports
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

UNHEALTHY = 1
DEPENDENCY_AWAY = os.EX_TEMPFAIL
TIMEOUT = 5.0
"""Seconds for one answer; restart-when-unhealthy.sh gives the whole probe 8 s."""

OK = 200
STATUS_LINE_BYTES = 256
SCHEDULER_HEALTH_PORT = 8974


def main(arguments: list[str]) -> None:
    """Runs the probe that the arguments name, and exits with its verdict."""
    match arguments:
        case ["http", port, path]:
            probe_http(int(port), path)
        case ["scheduler"]:
            probe_scheduler()
        case ["job", job_type]:
            probe_job(job_type)
        case ["worker"]:
            probe_worker()
        case _:
            finish(UNHEALTHY, __doc__ or "")


def finish(code: int, reason: str) -> NoReturn:
    """Ends the probe; the reason is what `docker inspect` shows in the container's health log."""
    print(reason)
    sys.exit(code)


def http_status(port: int, path: str) -> int:
    """The status code of a GET on this container's own port.

    By hand: to import http.client costs twice as much as all else.

    Raises:
        OSError: nothing listens, or no answer came within TIMEOUT.
        ValueError: the answer is not HTTP.
    """
    with socket.socket() as connection:  # socket.create_connection loads the code for names in other scripts
        connection.settimeout(TIMEOUT)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        status_line = connection.makefile("rb").readline(STATUS_LINE_BYTES)
    match status_line.split():
        case [protocol, status, *_] if protocol.startswith(b"HTTP/"):
            return int(status)
    raise ValueError(f"no HTTP answer: {status_line!r}")


def probe_http(port: int, path: str) -> None:
    """Healthy when the component answers on its own port: its event loop is alive."""
    try:
        status = http_status(port, path)
    except (OSError, ValueError) as error:
        finish(UNHEALTHY, f"GET :{port}{path}: {error!r}")
    if status != OK:
        finish(UNHEALTHY, f"GET :{port}{path}: {status}")


def probe_scheduler() -> None:
    """Healthy when the scheduler's own health server says that its job's heartbeat is fresh.

    It says 503 too while the database is away; then the cure is the database's return.
    """
    try:
        status = http_status(SCHEDULER_HEALTH_PORT, "/health")
    except (OSError, ValueError) as error:
        finish(UNHEALTHY, f"GET :{SCHEDULER_HEALTH_PORT}/health: {error!r}")
    if status != OK:
        heartbeat_age("SchedulerJob")  # ends the probe when the database is away
        finish(UNHEALTHY, f"GET :{SCHEDULER_HEALTH_PORT}/health: {status}")


def probe_job(job_type: str) -> None:
    """Healthy when this host's newest job of the type has a fresh heartbeat in the metadata database."""
    age = heartbeat_age(job_type)
    if age is None:
        finish(UNHEALTHY, f"no running {job_type} of host {socket.gethostname()}")
    if age > JOB_MAX_AGE:
        finish(UNHEALTHY, f"{job_type}: last heartbeat {age:.0f} s ago")


def heartbeat_age(job_type: str) -> float | None:
    """As `dependencies.job_heartbeat_age`; ends the probe with DEPENDENCY_AWAY when the database does not answer."""
    asked = dependencies()
    try:
        age: float | None = asked.job_heartbeat_age(job_type)
    except asked.DatabaseAwayError as error:
        finish(DEPENDENCY_AWAY, f"metadata database: {error}")
    return age


def dependencies() -> ModuleType:
    """What asks the database and Redis; with it, the installed packages that `-S` left out."""
    if sys.flags.no_site:
        import site

        site.main()
    from airflow_ha.health import dependencies

    return dependencies


def probe_worker() -> None:
    """Healthy when the worker consumed its queues a moment ago, by its own record.

    A worker can answer `inspect ping` and consume nothing (https://github.com/apache/airflow/issues/63580), so the
    record is made where messages are taken. While Redis is away no worker consumes, and none is to be restarted: its
    running tasks go on. Suspended tasks are reported, and make no worker unhealthy: a restart would lose them.
    """
    from airflow_ha.health.blocked_slots import blocked_slots

    if suspended := blocked_slots():
        print(f"suspended tasks: {suspended}")
    try:
        age = time.time() - os.stat(CONSUMPTION_FILE).st_mtime  # noqa: PTH116 (without pathlib)
    except FileNotFoundError:
        age = float("inf")
    if age > CONSUMPTION_MAX_AGE:
        said = f"consumed its queues {age:.0f} s ago" if age != float("inf") else "has not consumed its queues yet"
        finish(UNHEALTHY if dependencies().broker_answers() else DEPENDENCY_AWAY, said)


if __name__ == "__main__":
    main(sys.argv[1:])
