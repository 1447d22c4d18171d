"""Whether the database and Redis are there, asked by a probe that has to know.

Apart from the probe, which most often need not, since drivers are slow to import.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg2


class DatabaseAwayError(Exception):
    """The metadata database does not answer."""


def job_heartbeat_age(job_type: str) -> float | None:
    """Seconds since the last heartbeat of this host's newest running job; None when there is none.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
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
        raise DatabaseAwayError(error) from error
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


def broker_answers() -> bool:
    """Whether Redis answers a PING; of several, the one that the Sentinels call the primary."""
    import redis  # nobody else needs it
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
