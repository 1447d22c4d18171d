"""A connection to a primary that froze is broken as soon as another is the primary.

The fault, in libpq and kombu: neither limits how long it waits for an answer, and the kernel of a frozen process goes
on acknowledging what it is sent, so that neither keepalives nor tcp_user_timeout notice. A scheduler waits on such a
connection for as long as the freeze lasts, though a new primary serves; a worker takes no task.

The work-round: a thread looks at the process' own connections to Postgres and Redis. When an answer is overdue it asks
who is the primary, Patroni or the Sentinels, and shuts the connections that lead elsewhere; the waiting call gets an
error, and its pool connects anew. A query that only takes long is left alone, and so is everything while there is no
other primary. Without replicas (one Postgres, one Redis) no thread is started.

Loaded with the database's settings, and by workers through `imports` in Celery's (compose/airflow.yaml).
https://www.postgresql.org/docs/17/libpq-connect.html has the time-outs that there are. It can go when libpq has one for
reading.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init, worker_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

SECRETS = Path("/run/secrets")
POSTGRES_PORT, PATRONI_PORT, REDIS_PORT = 5432, 8008, 6379
OVERDUE_SECONDS = 4.0
"""An answer that takes longer is worth a question who is the primary; most take milliseconds."""
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 1.0
ESTABLISHED = 1
"""TCP_ESTABLISHED of the kernel; a connection that was shut and that its owner still holds is another."""


def connections(ports: frozenset[int]) -> Iterator[tuple[socket.socket, str, int]]:
    """This process' TCP connections to these ports, each with its peer; closed when the caller goes on."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names only)
        try:
            # A copy: the connection may be closed, and its number taken by another, at any time.
            copy = os.dup(int(name))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=copy)
        except OSError:  # not a socket
            os.close(copy)
            continue
        with connection:
            if connection.type == socket.SOCK_STREAM and connection.family == socket.AF_INET:
                with contextlib.suppress(OSError):
                    address, port = connection.getpeername()
                    if port in ports:
                        yield connection, address, port


def overdue(connection: socket.socket) -> bool:
    """Whether the last that went over a connection was a question, and long ago.

    Sent and received in the same tick of the kernel's clock counts too: which came first cannot be told.
    """
    tcp_info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # tcpi_state, tcpi_last_data_sent and tcpi_last_data_recv of linux/tcp.h; the latter two in milliseconds ago.
    state, sent, _, received = struct.unpack_from("=B43xIII", tcp_info)
    return bool(state == ESTABLISHED and sent <= received and sent > OVERDUE_SECONDS * 1000)


def look(primaries: Mapping[int, Callable[[], str | None]]) -> int:
    """Shuts every overdue connection whose peer is not the primary; returns how many.

    Args:
        primaries: By port, who finds the address of the primary; None while there is none, or it cannot be told.
    """
    shut = 0
    known: dict[int, str | None] = {}
    for connection, address, port in connections(frozenset(primaries)):
        if not overdue(connection):
            continue
        if port not in known:
            known[port] = primaries[port]()
        primary = known[port]
        if primary is not None and primary != address:
            log.warning("no answer from %s:%s, and %s is the primary: its connection is shut", address, port, primary)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            shut += 1
    return shut


def postgres_primary(nodes: list[str]) -> str | None:
    """The address of the node that Patroni calls the primary; None when none says so."""
    for node in nodes:
        question = http.client.HTTPConnection(node, PATRONI_PORT, timeout=ANSWER_SECONDS)
        try:
            question.request("GET", "/primary")
            if question.getresponse().status == http.client.OK:
                return socket.gethostbyname(node)
        except (OSError, http.client.HTTPException):
            continue
        finally:
            question.close()
    return None


def redis_primary(sentinels: list[str], name: str, settings: Mapping[str, Any]) -> str | None:
    """The address of the Redis that the first Sentinel to answer calls the primary; None when none answers."""
    import redis
    from redis.sentinel import Sentinel

    known: Any = Sentinel  # redis-py's has no types
    try:
        host, _ = known([(sentinel, 26379) for sentinel in sentinels], sentinel_kwargs=settings).discover_master(name)
        return socket.gethostbyname(host)
    except (OSError, redis.RedisError):
        return None


def secret(name: str) -> str:
    """The content of a secret's file; empty when this process has none."""
    try:
        return (SECRETS / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def find_primaries() -> dict[int, Callable[[], str | None]]:
    """Whom to ask, by port, from the URLs of this process; nobody for what has no replicas."""
    found: dict[int, Callable[[], str | None]] = {}
    url = secret("sql_alchemy_conn") or secret("celery_result_backend")
    nodes = re.findall(r"[?&]host=([^:&]+)", url)
    if nodes:
        found[POSTGRES_PORT] = lambda: postgres_primary(nodes)
    sentinels = re.findall(r"sentinel://[^;]*@([^:/;]+)", secret("celery_broker_url"))
    if sentinels:
        settings = json.loads(secret("celery_sentinel_kwargs") or "{}")
        found[REDIS_PORT] = lambda: redis_primary(sentinels, "airflow", settings)
    return found


_started_in: int | None = None


def start(**_: Any) -> None:
    """Starts the thread, once a process, if there are replicas."""
    global _started_in
    primaries = find_primaries()
    if _started_in == os.getpid() or not primaries:
        return
    _started_in = os.getpid()

    def watch() -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            try:
                look(primaries)
            except Exception:
                log.exception("looking for connections to a frozen primary failed; it is tried again")

    threading.Thread(target=watch, name="frozen-primary", daemon=True).start()


def start_in(component: str | None) -> None:
    """Starts the thread in a component that has Airflow's database."""
    start()
    if component == "scheduler":
        # Its health server is a fork that asks Postgres too, and whose silence would have the scheduler restarted.
        os.register_at_fork(after_in_child=start)


def apply() -> None:
    """Watch the connections of this process."""
    # A worker's own process when its pool is there, and each process of the pool.
    worker_ready.connect(start)
    worker_process_init.connect(start)
    if secret("sql_alchemy_conn"):
        start_in(os.environ.get("AIRFLOW_HA_COMPONENT"))
