"""A connection to a Postgres that froze is closed as soon as another node is the primary.

Problem: libpq has no limit for an answer, and the kernel of a frozen process goes on acknowledging what it is sent:
neither keepalives nor tcp_user_timeout notice. A scheduler waits for as long as the freeze lasts, though a new primary
serves; a worker's slot waits with the result of its task.
Patch: a thread checks the process's connections to the metadata database and Celery's results. When an answer is
overdue it asks Patroni for the primary, and shuts those to another node; the waiting call fails, and its pool connects
anew. A slow query on the primary is left alone, and so are engines of a DAG's own. Without replicas there is no thread.
A worker's processes fork each task: they have the thread only while a connection to the results is in use.
Applies to: SQLAlchemy 2.0.54, by its events; psycopg2 and psycopg. The scheduler's health server, a fork, too.
Upstream issue: none found; https://www.postgresql.org/docs/17/libpq-connect.html has the limits that there are.
Remove when: libpq has a limit for reading.
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
"""Where a connection's entry in its pool has the thread that watches while it is in use."""


def postgres_primary(nodes: tuple[str, ...]) -> str | None:
    """Return the node that Patroni calls the primary; None when none says so."""
    for node in nodes:
        question = http.client.HTTPConnection(node, PATRONI_PORT, timeout=stale_connections.ANSWER_SECONDS)
        try:
            question.request("GET", "/primary")
            if question.getresponse().status == http.client.OK:
                return node
        except (OSError, http.client.HTTPException):
            continue
        finally:
            question.close()
    return None


def nodes_of(engine: Engine) -> tuple[str, ...]:
    """Return the names of the nodes in an engine's URL."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return tuple(str(arguments.get("host", "")).split(","))


def watch(find_primary: Callable[[], str | None], connection: Any, _entry: object) -> None:
    """Watch a new connection."""
    driver = getattr(connection, "driver_connection", connection)
    stale_connections.watch(driver.fileno(), driver.info.host, find_primary)


def watch_always(*_: object) -> None:
    """Have a thread from the first connection on."""
    stale_connections.watch_always()


def taken(_connection: object, entry: Any, _fairy: object) -> None:
    """Start a thread for as long as a connection is in use, unless the process has one."""
    if not stale_connections.is_always_watched():
        entry.record_info[WATCHER] = stale_connections.started()


def given_back(_connection: object, entry: Any) -> None:
    """End the thread that was started for a connection."""
    watcher = entry.record_info.pop(WATCHER, None)
    if watcher is not None:
        watcher.end()


def attach(engine: Engine) -> bool:
    """Watch an engine's connections, and return whether it has several nodes."""
    nodes = nodes_of(engine)
    if len(nodes) > 1:
        event.listen(engine, "connect", partial(watch, partial(postgres_primary, nodes)))
    return len(nodes) > 1


def attach_to_metadata(engine: Engine) -> None:
    """Watch an engine whose process has the thread for as long as it lives."""
    if attach(engine):
        event.listen(engine, "connect", watch_always)


def attach_to_results(engine: Engine) -> None:
    """Watch an engine whose process may fork between two uses of it."""
    if attach(engine):
        event.listen(engine, "checkout", taken)
        event.listen(engine, "checkin", given_back)


def apply() -> None:
    """Watch the connections to the metadata database and to Celery's results."""
    on_metadata_engine(attach_to_metadata)
    on_result_engine(attach_to_results)
    if os.environ.get("AIRFLOW_HA_COMPONENT") == "scheduler":
        # Its health server is a fork that asks Postgres too, and whose silence would have the scheduler restarted.
        os.register_at_fork(after_in_child=stale_connections.watch_in_fork)
