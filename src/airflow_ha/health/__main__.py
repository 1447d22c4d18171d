"""The probe that Docker runs: `python -S -m airflow_ha.health PROBE`.

PROBE is `http PORT PATH`, `scheduler`, `job TYPE`, `worker` or `maintenance`.

`http PORT PATH frontend` asks on the container's address with a route outside, where API servers and Flower listen.
`liveness PROBE` exits with 0 instead of 75: Kubernetes restarts a container after any other code.

Every container runs it several times a minute, and the start of Python was most of its cost. So `-S` skips the scan of
installed packages, and modules that a healthy result does not need are imported later.

Exit codes, read by compose/health/restart-when-unhealthy.sh: 0 healthy, 1 unhealthy, 75 (EX_TEMPFAIL) if a dependency
of the component is unavailable, so that a restart would not help.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from airflow_ha.health.freshness import (
    CONSUMPTION_FILE,
    CONSUMPTION_MAX_AGE,
    JOB_MAX_AGE,
    MAINTENANCE_FILE,
    MAINTENANCE_MAX_AGE,
    STOPPING_FILE,
)

TYPE_CHECKING = False  # the import of `typing` is among the slowest
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

UNHEALTHY = 1
DEPENDENCY_DOWN = os.EX_TEMPFAIL
TIMEOUT = 5.0
"""Seconds per response; restart-when-unhealthy.sh limits the whole probe to 8 s."""

OK = 200
STATUS_LINE_BYTES = 256
SCHEDULER_HEALTH_PORT = 8974


def main(arguments: list[str]) -> None:
    """Run the probe that the arguments name, and exit with its result."""
    match arguments:
        case ["liveness", *probe]:
            try:
                main(probe)
            except SystemExit as end:
                sys.exit(0 if end.code == DEPENDENCY_DOWN else end.code)
        case ["http", port, path]:
            probe_http(int(port), path)
        case ["http", port, path, "frontend"]:
            probe_http(int(port), path, outer_address())
        case ["scheduler"]:
            probe_scheduler()
        case ["job", job_type]:
            probe_job(job_type)
        case ["worker"]:
            probe_worker()
        case ["maintenance"]:
            probe_maintenance()
        case _:
            finish(UNHEALTHY, __doc__ or "")


def finish(code: int, reason: str) -> NoReturn:
    """Exit with a code; `docker inspect` shows the reason in the container's health log."""
    print(reason)
    sys.exit(code)


def outer_address() -> str:
    """Return this container's address on its network with a route outside; no packet is sent.

    Raises:
        OSError: no network has such a route.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as connection:
        connection.connect(("192.0.2.1", 9))
        address: str = connection.getsockname()[0]
    return address


def http_status(port: int, path: str, host: str = "127.0.0.1") -> int:
    """Return the status code of a GET on this container's port.

    It uses a plain socket: the import of http.client costs twice as much as the rest of the probe.

    Args:
        port: the port.
        path: the path of the request.
        host: the address on which the component listens.

    Raises:
        OSError: nothing listens, or no response arrived within TIMEOUT.
        ValueError: the response is not HTTP.
    """
    with socket.socket() as connection:  # socket.create_connection imports the codec of international names
        connection.settimeout(TIMEOUT)
        connection.connect((host, port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status_line = connection.makefile("rb").readline(STATUS_LINE_BYTES)
    match status_line.split():
        case [protocol, status, *_] if protocol.startswith(b"HTTP/"):
            return int(status)
    raise ValueError(f"the response is not HTTP: {status_line!r}")


def probe_http(port: int, path: str, host: str = "127.0.0.1") -> None:
    """Exit unhealthy unless the component responds on its port, which shows that its event loop is alive."""
    try:
        status = http_status(port, path, host)
    except (OSError, ValueError) as error:
        finish(UNHEALTHY, f"GET :{port}{path}: {error!r}")
    if status != OK:
        finish(UNHEALTHY, f"GET :{port}{path}: {status}")


def probe_scheduler() -> None:
    """Exit unhealthy unless the scheduler's health server reports a fresh heartbeat of its job.

    It responds with 503 also during an outage of the database. A restart does not help then.
    """
    try:
        status = http_status(SCHEDULER_HEALTH_PORT, "/health")
    except (OSError, ValueError) as error:
        finish(UNHEALTHY, f"GET :{SCHEDULER_HEALTH_PORT}/health: {error!r}")
    if status != OK:
        heartbeat_age("SchedulerJob")  # exits if the database is unavailable
        finish(UNHEALTHY, f"GET :{SCHEDULER_HEALTH_PORT}/health: {status}")


def probe_job(job_type: str) -> None:
    """Exit unhealthy unless this host's newest job of the type has a fresh heartbeat in the metadata database."""
    age = heartbeat_age(job_type)
    if age is None:
        finish(UNHEALTHY, f"no running {job_type} on host {socket.gethostname()}")
    if age > JOB_MAX_AGE:
        finish(UNHEALTHY, f"{job_type}: last heartbeat {age:.0f} s ago")


def heartbeat_age(job_type: str) -> float | None:
    """Return `dependencies.job_heartbeat_age`; exit with DEPENDENCY_DOWN if the database does not respond."""
    clients = dependencies()
    try:
        age: float | None = clients.job_heartbeat_age(job_type)
    except clients.DatabaseDownError as error:
        finish(DEPENDENCY_DOWN, f"metadata database unavailable: {error}")
    return age


def dependencies() -> ModuleType:
    """Return the module that connects to the database and Redis, after enabling the packages that `-S` skipped."""
    if sys.flags.no_site:
        import site

        site.main()
    from airflow_ha.health import dependencies

    return dependencies


def probe_worker() -> None:
    """Exit unhealthy unless the worker's own record shows that it consumed its queues recently.

    A worker can respond to `inspect ping` and consume nothing (https://github.com/apache/airflow/issues/63580), so the
    record comes from the consumer. In an outage of Redis no worker consumes, and a restart would end running tasks.
    Suspended tasks are reported but do not make a worker unhealthy: a restart would lose them. Nor is a worker
    unhealthy that finishes its tasks before it stops.
    """
    from airflow_ha.health.blocked_slots import blocked_slots

    if suspended := blocked_slots():
        print(f"suspended tasks: {suspended}")
    if os.path.exists(STOPPING_FILE):  # noqa: PTH110 (without pathlib)
        print("stops as soon as its tasks have ended")
        return
    try:
        age = time.time() - os.stat(CONSUMPTION_FILE).st_mtime  # noqa: PTH116 (without pathlib)
    except FileNotFoundError:
        age = float("inf")
    if age > CONSUMPTION_MAX_AGE:
        reason = f"consumed its queues {age:.0f} s ago" if age != float("inf") else "has not consumed its queues yet"
        finish(UNHEALTHY if dependencies().is_broker_up() else DEPENDENCY_DOWN, reason)


def probe_maintenance() -> None:
    """Exit unhealthy unless maintenance worked or waited recently; print what it waits for."""
    try:
        with open(MAINTENANCE_FILE) as file:  # noqa: PTH123 (without pathlib)
            reason = file.read()
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        finish(UNHEALTHY, "has not started yet")
    if age > MAINTENANCE_MAX_AGE:
        finish(UNHEALTHY, f"worked {age:.0f} s ago")
    if reason:
        print(f"maintenance: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
