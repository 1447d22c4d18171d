"""Connections to a frozen Postgres primary are closed as soon as a new primary is elected.

Problem: libpq has no read timeout, and the kernel of a frozen process keeps acknowledging data, so neither keepalives
nor tcp_user_timeout detect it. A scheduler waits for the whole freeze although a new primary serves. So do the
results of a worker.
Patch: a thread checks this process's connections to the metadata database and Celery's results. If an answer is
overdue it queries Patroni for the primary and shuts connections to other nodes; their pool then reconnects. Slow
queries on the primary and engines of DAG code are not affected. No thread runs without replicas. A worker's main
process, which forks its pool, runs the thread only while it stores a result.
Applies to: SQLAlchemy 2.0.54, by its events; psycopg2 and psycopg; the scheduler's health server (a fork) too.
Upstream issue: none found; https://www.postgresql.org/docs/17/libpq-connect.html lists the existing timeouts.
Remove when: libpq has a read timeout.
"""

from __future__ import annotations

import http.client
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from airflow_ha.patches import stale_connections
from airflow_ha.patches.engines import on_metadata_engine, on_result_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

PATRONI_PORT = 8008
WATCHER: Final = "airflow_ha_watcher"
"""Key in a pool entry's record_info: the thread that runs while the connection is in use."""


def postgres_primary(nodes: tuple[str, ...]) -> str | None:
    """Return the node that Patroni reports as the primary; None if no node does."""
    for node in nodes:
        client = http.client.HTTPConnection(node, PATRONI_PORT, timeout=stale_connections.ANSWER_SECONDS)
        try:
            client.request("GET", "/primary")
            if client.getresponse().status == http.client.OK:
                return node
        except (OSError, http.client.HTTPException):
            continue
        finally:
            client.close()
    return None


def nodes_of(engine: Engine) -> tuple[str, ...]:
    """Return the node names in an engine's URL."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return tuple(str(arguments.get("host", "")).split(","))


def watch(find_primary: Callable[[], str | None], connection: Any, _entry: object) -> None:
    """Watch a new connection."""
    driver = getattr(connection, "driver_connection", connection)
    stale_connections.watch(driver.fileno(), driver.info.host, find_primary)


def on_first_connect(*_: object) -> None:
    """Start the permanent thread with the first connection."""
    stale_connections.start_permanent_watcher()


def on_checkout(_connection: object, entry: Any, _fairy: object) -> None:
    """Start a thread while the connection is in use, unless the process has a permanent one."""
    if not stale_connections.has_permanent_watcher():
        entry.record_info[WATCHER] = stale_connections.start_watcher()


def on_checkin(_connection: object, entry: Any) -> None:
    """Stop the thread that on_checkout started."""
    watcher = entry.record_info.pop(WATCHER, None)
    if watcher is not None:
        watcher.stop()


def attach(engine: Engine) -> bool:
    """Watch an engine's connections; return whether its URL has several nodes."""
    nodes = nodes_of(engine)
    if len(nodes) > 1:
        event.listen(engine, "connect", partial(watch, partial(postgres_primary, nodes)))
    return len(nodes) > 1


def attach_to_metadata(engine: Engine) -> None:
    """Watch an engine whose process keeps the thread for its whole lifetime."""
    if attach(engine):
        event.listen(engine, "connect", on_first_connect)


def attach_to_results(engine: Engine) -> None:
    """Watch an engine whose process may fork between two uses of it."""
    if attach(engine):
        event.listen(engine, "checkout", on_checkout)
        event.listen(engine, "checkin", on_checkin)


def apply() -> None:
    """Watch the connections to the metadata database and to Celery's results."""
    on_metadata_engine(attach_to_metadata)
    on_result_engine(attach_to_results)
    if os.environ.get("AIRFLOW_HA_COMPONENT") == "scheduler":
        # Its health server is a fork that queries Postgres too: if it hung, the scheduler would be restarted.
        os.register_at_fork(after_in_child=stale_connections.start_watcher_in_fork)
