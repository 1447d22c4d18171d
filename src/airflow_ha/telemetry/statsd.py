"""The StatsD client that Airflow loads: it adds the sender's tags, keeps every metric valid and never blocks or raises.

Required settings in `[metrics]`:

    statsd_on = True
    statsd_influxdb_enabled = True
    statsd_custom_client_path = airflow_ha.telemetry.statsd.TaggedStatsClient
    stat_name_handler = airflow_ha.telemetry.statsd.any_stat

`stat_name_handler` passes long names and unusual characters to this client. Without it Airflow drops each metric over
250 characters (tags included), with an error and a traceback in the log. It also drops each metric with a tag that has
a character other than an ASCII letter, a digit or `_.-/` (a pool "my pool", a DAG "größe"). No setting fixes one case:
`prepare_stat_with_tags` drops a tag with a comma or an equals sign before it calls the handler. The metric arrives
without that tag.

AIRFLOW_HA_COMPONENT names the component. A worker's task processes report `task`.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from statsd import StatsClient  # type: ignore[import-untyped]
from statsd.client.udp import Pipeline  # type: ignore[import-untyped]

from airflow_ha.telemetry.dogstatsd import head_and_tail, sanitize
from airflow_ha.telemetry.exporter_address import Address, shared_directory

if TYPE_CHECKING:
    from datetime import timedelta

QUEUE_LIMIT = 1000
"""The most lines that are queued until the first lookup of the exporter ends."""

CACHE_LIMIT = 1024
"""The most stats whose converted form is cached: a flood of distinct tags costs time, not memory."""

_LABEL_LIMIT = 64

log = logging.getLogger(__name__)


def any_stat(stat: str) -> str:
    """Return the stat unchanged; as Airflow's `stat_name_handler`, because TaggedStatsClient sanitizes names.

    Args:
        stat: a name with its Influx tags.
    """
    return str(stat)


def component() -> str:
    """Return `task` for a worker's task process, otherwise AIRFLOW_HA_COMPONENT, or `unknown` if it is not set."""
    name = os.environ.get("AIRFLOW_HA_COMPONENT") or "unknown"
    # task_runner.main() sets SUPERVISOR_COMMS in the forked child before its first metric. Upstream uses it too
    # (airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded).
    if name.startswith("worker") and hasattr(
        sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS"
    ):
        return "task"
    return name


class TaggedPipeline(Pipeline):  # type: ignore[misc]
    """Packs several metrics into as few packets as possible."""

    def _prepare(self, stat: str, value: str, rate: float) -> str | None:
        line: str | None = self._client._prepare(stat, value, rate)
        return line


class TaggedStatsClient(StatsClient):  # type: ignore[misc]
    """A StatsD client that writes DogStatsD tags, and adds `component` and `airflow_instance` (the host name).

    No call blocks or raises: metrics that cannot be sent are dropped. Each metric is one packet, so an exiting process
    loses none. Metrics before the end of the exporter's first lookup are queued.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8125,
        prefix: str | None = None,
        maxudpsize: int | bool = 512,
        ipv6: bool = False,
    ) -> None:
        # Airflow passes ipv6 as the fourth positional argument, where the base class has maxudpsize:
        # airflow/_shared/observability/metrics/statsd_logger.py, get_statsd_logger.
        if isinstance(maxudpsize, bool):
            ipv6, maxudpsize = maxudpsize, 512
        self._family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._prefix = prefix
        self._maxudpsize = maxudpsize
        self._sock: socket.socket | None = None
        self._closed = False
        self._queue: deque[bytes] = deque(maxlen=QUEUE_LIMIT)
        self._address = Address(
            host, port, self._family, directory=shared_directory(), on_lookup_done=self._send_queued
        )
        self._start()
        self._address.refresh()

    def _start(self) -> None:
        """Initialise the state of this process, new or forked."""
        self._pid = os.getpid()
        self._own = {
            "component": sanitize(component(), _LABEL_LIMIT),
            "airflow_instance": sanitize(socket.gethostname(), _LABEL_LIMIT),
        }
        self._lines: dict[str, tuple[str, str]] = {}
        self._queue.clear()  # the parent sends its own lines
        self._sock = None
        self._address.after_fork()

    def timing(self, stat: str, delta: float | timedelta, rate: float = 1) -> None:
        """Send a duration.

        Args:
            stat: its name.
            delta: milliseconds, or a timedelta.
            rate: the sampling rate, 0 to 1.
        """
        try:
            super().timing(stat, delta, rate)
        except Exception:
            _refuse(stat, delta)

    def incr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Add to a counter.

        Args:
            stat: its name.
            count: the increment.
            rate: the sampling rate, 0 to 1.
        """
        try:
            super().incr(stat, count, rate)
        except Exception:
            _refuse(stat, count)

    def decr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Subtract from a counter.

        Args:
            stat: its name.
            count: the decrement.
            rate: the sampling rate, 0 to 1.
        """
        try:
            super().incr(stat, -count, rate)
        except Exception:
            _refuse(stat, count)

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False) -> None:
        """Set or change a gauge.

        Args:
            stat: its name.
            value: the value, or the change.
            rate: the sampling rate, 0 to 1.
            delta: whether the value is a change.
        """
        try:
            super().gauge(stat, value, rate, delta)
        except Exception:
            _refuse(stat, value)

    def set(self, stat: str, value: Any, rate: float = 1) -> None:
        """Add a member to a set.

        Args:
            stat: the set's name.
            value: the member.
            rate: the sampling rate, 0 to 1.
        """
        try:
            super().set(stat, sanitize(str(value), _LABEL_LIMIT), rate)
        except Exception:
            _refuse(stat, value)

    def pipeline(self) -> TaggedPipeline:
        """Return a batch of metrics, which is sent by `send()` or at the end of its `with` block."""
        return TaggedPipeline(self)

    def close(self) -> None:
        """Stop sending; later metrics are dropped."""
        self._closed = True
        if self._sock:
            self._sock.close()
        self._sock = None

    def _prepare(self, stat: str, value: str, rate: float) -> str | None:
        if rate < 1:
            if random.random() > rate:  # noqa: S311
                return None
            value = f"{value}|@{rate}"
        if os.getpid() != self._pid:
            self._start()
        line = self._lines.get(stat)
        if line is None:
            if len(self._lines) >= CACHE_LIMIT:
                self._lines.clear()
            line = self._lines[stat] = head_and_tail(stat, self._prefix or "", self._own)
        return f"{line[0]}:{value}{line[1]}"

    def _send(self, data: str) -> None:
        address = self._address
        address.refresh()
        line = data.encode("ascii", "replace")
        if address.current:
            self._transmit(line)
        elif not address.is_lookup_done:
            self._queue.append(line)
            if address.is_lookup_done:  # the lookup ended in between
                self._send_queued()

    def _transmit(self, line: bytes) -> None:
        try:
            if self._sock is None:
                if self._closed:
                    return
                sock = socket.socket(self._family, socket.SOCK_DGRAM)
                # A full send buffer must drop and not block; an address that does not respond to ARP fills it.
                sock.setblocking(False)
                self._sock = sock
            # The socket is unconnected: after the exporter refuses a packet, a connected one fails on the next packet.
            self._sock.sendto(line, self._address.current)  # type: ignore[arg-type]
        except (OSError, AttributeError, TypeError):  # another thread closed the socket: the metric is lost, as in UDP
            pass

    def _send_queued(self) -> None:
        is_resolved = self._address.current is not None
        while self._queue:
            try:
                line = self._queue.popleft()
            except IndexError:  # another thread sent the last line
                return
            if is_resolved:
                self._transmit(line)


def _refuse(stat: object, value: object) -> None:
    log.debug("cannot send the metric %r with value %r", stat, value, exc_info=True)
