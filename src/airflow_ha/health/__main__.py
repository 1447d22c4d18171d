"""The probe that Docker runs: `python -m airflow_ha.health {http PORT PATH | scheduler | job TYPE | worker}`.

Exit codes, read by compose/health/guard.sh: 0 healthy, 1 unhealthy, 75 (EX_TEMPFAIL) when something the component
depends on is away, so that a restart would mend nothing.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from airflow_ha.health.freshness import CONSUMPTION_FILE, CONSUMPTION_MAX_AGE, JOB_MAX_AGE

UNHEALTHY = 1
DEPENDENCY_AWAY = os.EX_TEMPFAIL
TIMEOUT = 5.0
"""Seconds for one answer; Docker's own limit on the probe is 10 s."""

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

    By hand: every container does this six times a minute, and to import http.client costs twice as much as all else.

    Raises:
        OSError: nothing listens, or no answer came within TIMEOUT.
        ValueError: the answer is not HTTP.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
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
        job_heartbeat_age("SchedulerJob")  # ends the probe when the database is away
        finish(UNHEALTHY, f"GET :{SCHEDULER_HEALTH_PORT}/health: {status}")


def probe_job(job_type: str) -> None:
    """Healthy when this host's newest job of the type has a fresh heartbeat in the metadata database."""
    age = job_heartbeat_age(job_type)
    if age is None:
        finish(UNHEALTHY, f"no running {job_type} of host {socket.gethostname()}")
    if age > JOB_MAX_AGE:
        finish(UNHEALTHY, f"{job_type}: last heartbeat {age:.0f} s ago")


def job_heartbeat_age(job_type: str) -> float | None:
    """Seconds since the last heartbeat of this host's newest running job; None when there is none.

    Ends the probe with DEPENDENCY_AWAY when the database does not answer.
    """
    import psycopg2

    url = Path("/run/secrets/sql_alchemy_conn").read_text().strip()
    try:
        connection = psycopg2.connect(libpq_url(url), connect_timeout=3, options="-c statement_timeout=3000")
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT extract(epoch FROM now() - latest_heartbeat)::float FROM job"
                    " WHERE job_type = %s AND hostname = %s AND state = 'running'"
                    " ORDER BY latest_heartbeat DESC LIMIT 1",
                    (job_type, socket.gethostname()),
                )
                row = cursor.fetchone()
        finally:
            connection.close()
    except psycopg2.Error as error:
        finish(DEPENDENCY_AWAY, f"metadata database: {error}")
    return None if row is None else float(row[0])


def libpq_url(url: str) -> str:
    """SQLAlchemy's URL as libpq takes it: several hosts stand before the path, separated by commas."""
    rest = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    hosts = re.findall(r"[?&]host=([^&]+)", rest)
    if not hosts:
        return rest
    base, _, query = rest.partition("?")
    others = [setting for setting in query.split("&") if not setting.startswith("host=")]
    return base.replace("@/", f"@{','.join(hosts)}/", 1) + "?" + "&".join(others)


def probe_worker() -> None:
    """Healthy when the worker consumed its queues a moment ago, by its own record.

    A worker can answer `inspect ping` and consume nothing (https://github.com/apache/airflow/issues/63580), so the
    record is made where messages are taken. While Redis is away no worker consumes, and none is to be restarted: its
    running tasks go on.
    """
    try:
        age = time.time() - CONSUMPTION_FILE.stat().st_mtime
    except FileNotFoundError:
        age = float("inf")
    if age > CONSUMPTION_MAX_AGE:
        said = f"consumed its queues {age:.0f} s ago" if age != float("inf") else "has not consumed its queues yet"
        finish(UNHEALTHY if broker_answers() else DEPENDENCY_AWAY, said)


def broker_answers() -> bool:
    """Whether Redis answers a PING; of several, the one that the Sentinels call the primary."""
    from urllib.parse import unquote

    import redis
    from redis.sentinel import Sentinel

    url = Path("/run/secrets/celery_broker_url").read_text().strip()
    patience = {"socket_connect_timeout": 1, "socket_timeout": 1}
    sentinels = re.findall(r"sentinel://:([^;]*)@([^:/;]+):(\d+)", url)
    if sentinels:
        password = unquote(sentinels[0][0])
        hosts = [(host, int(port)) for _, host, port in sentinels]
        known: Any = Sentinel  # redis-py's has no types
        client = known(
            hosts, sentinel_kwargs={"password": password, **patience}, password=password, **patience
        ).master_for("airflow")
    else:
        client = redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
