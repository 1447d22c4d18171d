"""Connections of the probe to the database and Redis.

This is a separate module because drivers are slow to import, and most probes need none.
"""

from __future__ import annotations

import re
import socket
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg2

from airflow_ha.secret_masking import SECRETS


class DatabaseDownError(Exception):
    """The metadata database does not respond."""


def job_heartbeat_age(job_type: str) -> float | None:
    """Return the seconds since the last heartbeat of this host's newest running job; None if it has no such job.

    Raises:
        DatabaseDownError: the database does not respond.
    """
    url = (SECRETS / "sql_alchemy_conn").read_text().strip()
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
        raise DatabaseDownError(error) from error
    return None if row is None else float(row[0])


def libpq_url(url: str) -> str:
    """Convert SQLAlchemy's URL to libpq's, which has several hosts before the path, comma-separated."""
    rest = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    hosts = re.findall(r"[?&]host=([^&]+)", rest)
    if not hosts:
        return rest
    base, _, query = rest.partition("?")
    others = [setting for setting in query.split("&") if not setting.startswith("host=")]
    return base.replace("@/", f"@{','.join(hosts)}/", 1) + "?" + "&".join(others)


def is_broker_up() -> bool:
    """Return whether Redis responds to a PING; with Sentinels, whether the primary does."""
    import redis  # slow, and only this function needs it
    from redis.sentinel import Sentinel

    url = (SECRETS / "celery_broker_url").read_text().strip()
    timeouts = {"socket_connect_timeout": 1, "socket_timeout": 1}
    urls = [urlsplit(each) for each in url.split(";")]
    if urls[0].scheme == "sentinel":
        hosts = [(each.hostname, each.port) for each in urls]
        # The same at the Sentinels and at Redis (ops/redis_users.py).
        login = {"username": unquote(urls[0].username or ""), "password": unquote(urls[0].password or "")}
        untyped: Any = Sentinel  # redis-py's Sentinel has no types
        client = untyped(hosts, sentinel_kwargs={**login, **timeouts}, **login, **timeouts).master_for("airflow")
    else:
        client = redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
