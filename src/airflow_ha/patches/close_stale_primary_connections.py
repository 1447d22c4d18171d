"""A connection to a primary that froze is broken as soon as another is the primary.

Problem: neither libpq nor kombu limits how long it waits for an answer, and the kernel of a frozen process goes on
acknowledging what it is sent, so neither keepalives nor tcp_user_timeout notice. A scheduler waits for as long as the
freeze lasts, though a new primary serves; a worker takes no task.
Patch: when an answer is overdue, a thread asks Patroni or the Sentinels for the primary, and shuts the connection if it
leads elsewhere: the waiting call fails, and its pool connects anew. Without another primary nothing is shut. To
Postgres only connections of Airflow's and Celery's engines are watched, none of a trigger's or a plugin's own.
A process of a worker's pool forks each task, and a fork beside a thread may inherit a locked lock. It waits for
Postgres only while it writes a task's state or result, so its thread lives for as long as that.
Applies to: every component that reaches Postgres or Redis, where these have replicas.
Upstream issue: none found; https://www.postgresql.org/docs/17/libpq-connect.html has the time-outs that there are.
Remove when: libpq and redis-py limit the wait for an answer.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import json
import logging
import os
import socket
import struct
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from celery.signals import worker_process_init, worker_ready
from sqlalchemy import event, make_url

from airflow_ha.patches.engines import on_metadata_engine, on_result_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Engine

log = logging.getLogger(__name__)

SECRETS = Path("/run/secrets")
PATRONI_PORT, REDIS_PORT, SENTINEL_PORT = 8008, 6379, 26379
OVERDUE_SECONDS = 4.0
"""An answer that takes longer is worth a question who is the primary; most take milliseconds."""
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 1.0
ESTABLISHED = 1
"""TCP_ESTABLISHED of the kernel; a connection that was shut and that its owner still holds is another."""
THREAD: Final = "frozen-primary"

_engine_connections: set[weakref.ref[Any]] = set()
"""The drivers' own connections of the engines that are watched."""


@dataclass(frozen=True)
class Replicated:
    """A service that has replicas.

    Attributes:
        connections: This process' connections to it, each a copy that is closed when the caller goes on.
        primary: The addresses of its primary; none while there is none, or it cannot be told.
    """

    connections: Callable[[], Iterator[socket.socket]]
    primary: Callable[[], frozenset[str]]


def remember(connection: Any, _record: object) -> None:
    """Keep a weak reference to a new connection of an engine."""
    driver_connection = getattr(connection, "driver_connection", connection)
    _engine_connections.add(weakref.ref(driver_connection, _engine_connections.discard))


def attach(engine: Engine) -> None:
    """Watch the connections of an engine, if it is one to Postgres."""
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", remember)


def tcp_copy(number: int) -> socket.socket | None:
    """Return a copy of an open file if it is a TCP connection: the file itself may be closed at any time."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # not a socket
        os.close(copy)
        return None
    if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
        return connection
    connection.close()
    return None


def file_number(reference: weakref.ref[Any]) -> int | None:
    """Return the file of a driver's connection; None if it is closed, or gone."""
    connection = reference()
    if connection is None:
        return None
    try:
        number: int = connection.fileno()
    except Exception:  # each driver has its own for a closed connection
        return None
    return number


def engine_connections() -> Iterator[socket.socket]:
    """Yield the open connections of the engines that are watched."""
    for reference in tuple(_engine_connections):
        number = file_number(reference)
        copy = None if number is None else tcp_copy(number)
        if copy is not None:
            with copy:
                if file_number(reference) == number:  # else the copy may be of a file that took the number since
                    yield copy


def connections_to(port: int) -> Iterator[socket.socket]:
    """Yield this process' connections to a port."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names only)
        copy = tcp_copy(int(name))
        if copy is not None:
            with copy:
                if peer(copy)[1] == port:
                    yield copy


def peer(connection: socket.socket) -> tuple[str, int]:
    """Return the address and port of the other end; neither if it is gone."""
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "", 0
    return comparable(host), port


def comparable(address: str) -> str:
    """Return an address without its zone, and IPv4 as such where IPv6 carries it."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def addresses(host: str) -> frozenset[str]:
    """Return every address of a host, in all networks that this process shares with it.

    Raises:
        OSError: The name is not known.
    """
    return frozenset(comparable(str(found[4][0])) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


def overdue(connection: socket.socket) -> bool:
    """Whether the last that went over a connection was a question, and long ago.

    Sent and received in the same tick of the kernel's clock counts too: which came first cannot be told.
    """
    tcp_info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # tcpi_state, tcpi_last_data_sent and tcpi_last_data_recv of linux/tcp.h; the latter two in milliseconds ago.
    state, sent, _, received = struct.unpack_from("=B43xIII", tcp_info)
    return bool(state == ESTABLISHED and sent <= received and sent > OVERDUE_SECONDS * 1000)


def look(services: Iterable[Replicated]) -> int:
    """Shut every overdue connection whose peer is not the primary; return how many.

    The primary is asked for once a service, and not at all while nothing is overdue.
    """
    shut = 0
    for service in services:
        primary = functools.cache(service.primary)
        for connection in service.connections():
            host, port = peer(connection)
            if not host or not overdue(connection) or not primary() or host in primary():
                continue
            others = ", ".join(sorted(primary()))
            log.warning("no answer from %s:%s, and the primary is %s: its connection is shut", host, port, others)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            shut += 1
    return shut


def postgres_primary(nodes: Iterable[str]) -> frozenset[str]:
    """Return the addresses of the node that Patroni calls the primary; none when none says so."""
    for node in nodes:
        question = http.client.HTTPConnection(node, PATRONI_PORT, timeout=ANSWER_SECONDS)
        try:
            question.request("GET", "/primary")
            if question.getresponse().status == http.client.OK:
                return addresses(node)
        except (OSError, http.client.HTTPException):
            continue
        finally:
            question.close()
    return frozenset()


def redis_primary(sentinels: Iterable[str], name: str, settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the addresses of the Redis that the first Sentinel to answer calls the primary; none when none answers."""
    import redis
    from redis.sentinel import Sentinel

    known: Any = Sentinel  # redis-py's has no types
    asked = [(sentinel, SENTINEL_PORT) for sentinel in sentinels]
    try:
        host, _ = known(asked, sentinel_kwargs=settings).discover_master(name)
        return addresses(host)
    except (OSError, redis.RedisError):
        return frozenset()


def secret(name: str) -> str:
    """The content of a secret's file; empty when this process has none."""
    try:
        return (SECRETS / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def postgres_nodes(url: str) -> list[str]:
    """Return the nodes of a URL that lists them, without their ports; none of a URL with one host.

    Args:
        url: As SQLAlchemy takes it, `?host=a:1&host=b:2` or `?host=a,b&port=1,2`; empty when there is none.
    """
    hosts = make_url(url.removeprefix("db+")).query.get("host", ()) if url else ()
    tokens = [hosts] if isinstance(hosts, str) else hosts
    nodes = [node for token in tokens for node in token.split(",")]
    # An IPv6 address has several colons, and no port beside it.
    return [node.partition(":")[0] if node.count(":") == 1 else node for node in nodes]


def sentinel_hosts(url: str) -> list[str]:
    """Return the hosts of a Celery broker's URL that are Sentinels."""
    brokers = [urlsplit(one) for one in url.split(";")]
    return [broker.hostname for broker in brokers if broker.scheme == "sentinel" and broker.hostname]


def replicated_services() -> list[Replicated]:
    """Return what has replicas, by the URLs of this process."""
    services = []
    if nodes := postgres_nodes(secret("sql_alchemy_conn") or secret("celery_result_backend")):
        services.append(Replicated(engine_connections, lambda: postgres_primary(nodes)))
    if sentinels := sentinel_hosts(secret("celery_broker_url")):
        settings = json.loads(secret("celery_sentinel_kwargs") or "{}")
        redis_connections = functools.partial(connections_to, REDIS_PORT)
        services.append(Replicated(redis_connections, lambda: redis_primary(sentinels, "airflow", settings)))
    return services


def watch(services: Sequence[Replicated], ended: threading.Event) -> None:
    """Look every LOOK_SECONDS until it is ended."""
    while not ended.wait(LOOK_SECONDS):
        try:
            look(services)
        except Exception:
            log.exception("looking for connections to a frozen primary failed; it is tried again")


def start_thread(services: Sequence[Replicated], ended: threading.Event) -> threading.Thread:
    """Start a thread that watches."""
    thread = threading.Thread(target=watch, args=(services, ended), name=THREAD, daemon=True)
    thread.start()
    return thread


_started_in: int | None = None


def start(**_: Any) -> None:
    """Start the thread, once a process, if there are replicas."""
    global _started_in
    services = replicated_services()
    if _started_in == os.getpid() or not services:
        return
    _started_in = os.getpid()
    start_thread(services, threading.Event())


def start_in(component: str | None) -> None:
    """Start the thread in a component that has Airflow's database."""
    start()
    if component == "scheduler":
        # Its health server is a fork that asks Postgres too, and whose silence would have the scheduler restarted.
        os.register_at_fork(after_in_child=start)


def watch_result_writes(**_: Any) -> None:
    """Watch this process' connections while it writes a task's state or result, if there are replicas."""
    from celery.backends.database import DatabaseBackend

    services = replicated_services()
    if not services:
        return
    backend: Any = DatabaseBackend
    store_result = backend.store_result

    @functools.wraps(store_result)
    def watched(*args: Any, **options: Any) -> Any:
        ended = threading.Event()
        thread = start_thread(services, ended)
        try:
            return store_result(*args, **options)
        finally:
            ended.set()
            thread.join()

    backend.store_result = watched


def apply() -> None:
    """Watch the connections of this process."""
    on_metadata_engine(attach)
    on_result_engine(attach)
    # A worker's own process when its pool is there, and each process of the pool.
    worker_ready.connect(start)
    worker_process_init.connect(watch_result_writes)
    if secret("sql_alchemy_conn"):
        start_in(os.environ.get("AIRFLOW_HA_COMPONENT"))
