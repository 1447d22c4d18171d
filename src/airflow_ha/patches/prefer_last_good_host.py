"""A new connection tries the node first that took the last one.

Problem: libpq and psycopg try the nodes of a URL in its order, and a frozen node takes all of connect_timeout (3 s)
before the next has its turn, at each connection. Celery's result backend connects for each question: a scheduler that
adopted tasks asked for each of them with the tasks' rows locked, and a failover took 47 s, not 25.
Patch: the node that answered is remembered, and asked first, for the metadata database and Celery's results. An engine
of a DAG's own keeps its order. `load_balance_hosts` spends the 3 s on each second connection.
Applies to: SQLAlchemy 2.0.54, by its events `do_connect` and `connect`; psycopg2 and psycopg.
Upstream issue: none found; https://www.postgresql.org/docs/17/libpq-connect.html has the rule.
Remove when: libpq remembers a node that timed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from airflow_ha.patches.engines import on_metadata_engine, on_result_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import Dialect

_took_the_last: str | None = None


def put_first(_dialect: Dialect, _record: object, _cargs: tuple[Any, ...], cparams: dict[str, Any]) -> None:
    """Brings the node that took the last connection to the front of a list of nodes, with its port."""
    nodes = str(cparams.get("host", "")).split(",")
    if _took_the_last not in nodes[1:]:
        return
    ports = str(cparams.get("port", "")).split(",")
    order = sorted(range(len(nodes)), key=lambda at: nodes[at] != _took_the_last)
    cparams["host"] = ",".join(nodes[at] for at in order)
    if len(ports) == len(nodes):  # otherwise one port is for all of them
        cparams["port"] = ",".join(ports[at] for at in order)


def remember(connection: Any, _record: object) -> None:
    """Keeps the name of the node that took a connection; drivers without nodes have none."""
    global _took_the_last
    info = getattr(getattr(connection, "driver_connection", connection), "info", None)
    _took_the_last = getattr(info, "host", None) or _took_the_last


def attach(engine: Engine) -> None:
    """Have this engine's connections begin with the node that took the last one."""
    event.listen(engine, "do_connect", put_first)
    event.listen(engine, "connect", remember)


def apply() -> None:
    """Try the host first that took the last connection to the metadata database, or to Celery's results."""
    on_metadata_engine(attach)
    on_result_engine(attach)
