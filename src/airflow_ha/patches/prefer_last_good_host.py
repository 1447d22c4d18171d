"""New connections try the Postgres node first that accepted the last connection.

Problem: libpq and psycopg try the nodes of a URL in order. A frozen node delays each connection by connect_timeout
(3 s). Celery's result backend connects for each query. A scheduler that adopted tasks queried each result while it held
the tasks' row locks, so a failover took 47 s instead of 25 s.
Patch: remember the node that accepted the last connection, and try it first for the metadata database and Celery's
results. Engines that DAG code creates keep their order. `load_balance_hosts` would still lose 3 s on every second
connection.
Applies to: SQLAlchemy 2.0.54, by its events `do_connect` and `connect`; psycopg2 and psycopg.
Upstream issue: none found; https://www.postgresql.org/docs/17/libpq-connect.html documents the order.
Remove when: libpq remembers a node that timed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from airflow_ha.patches.engines import on_metadata_engine, on_result_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import Dialect

_last_good_host: str | None = None


def put_first(_dialect: Dialect, _record: object, _cargs: tuple[Any, ...], cparams: dict[str, Any]) -> None:
    """Move the node that accepted the last connection, with its port, to the front of the node list."""
    nodes = str(cparams.get("host", "")).split(",")
    if _last_good_host not in nodes[1:]:
        return
    ports = str(cparams.get("port", "")).split(",")
    order = sorted(range(len(nodes)), key=lambda at: nodes[at] != _last_good_host)
    cparams["host"] = ",".join(nodes[at] for at in order)
    if len(ports) == len(nodes):  # otherwise one port applies to all nodes
        cparams["port"] = ",".join(ports[at] for at in order)


def remember(connection: Any, _record: object) -> None:
    """Store the node of a new connection. Drivers without nodes have none."""
    global _last_good_host
    info = getattr(getattr(connection, "driver_connection", connection), "info", None)
    _last_good_host = getattr(info, "host", None) or _last_good_host


def attach(engine: Engine) -> None:
    """Let the connections of this engine try the last good node first."""
    event.listen(engine, "do_connect", put_first)
    event.listen(engine, "connect", remember)


def apply() -> None:
    """Try the last good node first in the metadata database and Celery's result backend."""
    on_metadata_engine(attach)
    on_result_engine(attach)
