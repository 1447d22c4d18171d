"""The StatsD client that Airflow loads: it says who speaks, keeps every metric valid and never hurts the caller.

Settings it wants, in `[metrics]`:

    statsd_on = True
    statsd_influxdb_enabled = True
    statsd_custom_client_path = airflow_ha.telemetry.statsd.TaggedStatsClient
    stat_name_handler = airflow_ha.telemetry.statsd.any_stat

The last is what lets long names and odd characters come this far: by itself Airflow drops, with an error and a
traceback in the log, every metric over 250 characters, tags included, or with a character in a tag that is not an
ASCII letter, a digit or one of `_.-/` (a pool "my pool", a DAG "größe"). One thing no setting can mend: a tag with a
comma or an equals sign in it is left out by `prepare_stat_with_tags` before the handler is asked; the metric arrives
without that tag.

AIRFLOW_HA_COMPONENT names the component. A worker's task processes say `task`.
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

from airflow_ha.telemetry.dogstatsd import head_and_tail, mended
from airflow_ha.telemetry.exporter_address import Address, shared_directory

if TYPE_CHECKING:
    from datetime import timedelta

WAITING_LIMIT = 1000
"""Lines kept until the first look-up of the exporter has ended."""

CACHE_LIMIT = 1024
"""Different stats whose mended form is remembered: a flood of distinct tags costs time, not memory."""

_LABEL_LIMIT = 64

log = logging.getLogger(__name__)


def any_stat(stat: str) -> str:
    """Airflow's `stat_name_handler`: let every name pass, because TaggedStatsClient mends them.

    Args:
        stat: a name with its Influx tags.

    Returns:
        The same.
    """
    return str(stat)


def component() -> str:
    """What kind of process this is: AIRFLOW_HA_COMPONENT, `task` for a worker's task, else `unknown`."""
    name = os.environ.get("AIRFLOW_HA_COMPONENT") or "unknown"
    # Set by task_runner.main() in the forked child, before it sends its first metric; upstream tells tasks by it too
    # (airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded).
    if name.startswith("worker") and hasattr(
        sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS"
    ):
        return "task"
    return name


class TaggedPipeline(Pipeline):  # type: ignore[misc]
    """Several metrics in as few packets as they fit in."""

    def _prepare(self, stat: str, value: str, rate: float) -> str | None:
        line: str | None = self._client._prepare(stat, value, rate)
        return line


class TaggedStatsClient(StatsClient):  # type: ignore[misc]
    """A StatsD client that writes DogStatsD tags, and adds `component` and `airflow_instance` (the host's name).

    No call blocks or raises: what cannot be sent is dropped. One metric is one packet, so nothing is left behind in a
    process that ends at once. What is sent before the exporter's first look-up has ended waits for it.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8125,
        prefix: str | None = None,
        maxudpsize: int | bool = 512,
        ipv6: bool = False,
    ) -> None:
        # Airflow passes ipv6 fourth, by position, where the base class has maxudpsize:
        # airflow/_shared/observability/metrics/statsd_logger.py, get_statsd_logger.
        if isinstance(maxudpsize, bool):
            ipv6, maxudpsize = maxudpsize, 512
        self._family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._prefix = prefix
        self._maxudpsize = maxudpsize
        self._sock: socket.socket | None = None
        self._closed = False
        self._waiting: deque[bytes] = deque(maxlen=WAITING_LIMIT)
        self._address = Address(host, port, self._family, directory=shared_directory(), on_found=self._send_what_waited)
        self._start()
        self._address.refresh()

    def _start(self) -> None:
        """Begin as this process, new or forked."""
        self._pid = os.getpid()
        self._own = {
            "component": mended(component(), _LABEL_LIMIT),
            "airflow_instance": mended(socket.gethostname(), _LABEL_LIMIT),
        }
        self._lines: dict[str, tuple[str, str]] = {}
        self._waiting.clear()  # the parent sends its own
        self._sock = None
        self._address.after_fork()

    def timing(self, stat: str, delta: float | timedelta, rate: float = 1) -> None:
        """Send a duration.

        Args:
            stat: its name.
            delta: milliseconds, or a timedelta.
            rate: the share that is sent, 0 to 1.
        """
        try:
            super().timing(stat, delta, rate)
        except Exception:
            _refuse(stat, delta)

    def incr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Add to a counter.

        Args:
            stat: its name.
            count: how many.
            rate: the share that is sent, 0 to 1.
        """
        try:
            super().incr(stat, count, rate)
        except Exception:
            _refuse(stat, count)

    def decr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Take from a counter.

        Args:
            stat: its name.
            count: how many.
            rate: the share that is sent, 0 to 1.
        """
        try:
            super().incr(stat, -count, rate)
        except Exception:
            _refuse(stat, count)

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False) -> None:
        """Set a gauge, or change it.

        Args:
            stat: its name.
            value: the value, or the change.
            rate: the share that is sent, 0 to 1.
            delta: whether it is a change.
        """
        try:
            super().gauge(stat, value, rate, delta)
        except Exception:
            _refuse(stat, value)

    def set(self, stat: str, value: Any, rate: float = 1) -> None:
        """Count a member of a set once.

        Args:
            stat: the set's name.
            value: the member.
            rate: the share that is sent, 0 to 1.
        """
        try:
            super().set(stat, mended(str(value), _LABEL_LIMIT), rate)
        except Exception:
            _refuse(stat, value)

    def pipeline(self) -> TaggedPipeline:
        """A batch of metrics, sent together by `send()` or at the end of its `with`."""
        return TaggedPipeline(self)

    def close(self) -> None:
        """Stop sending; what comes after is dropped."""
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
        elif not address.searched:
            self._waiting.append(line)
            if address.searched:  # the look-up ended in between
                self._send_what_waited()

    def _transmit(self, line: bytes) -> None:
        try:
            if self._sock is None:
                if self._closed:
                    return
                sock = socket.socket(self._family, socket.SOCK_DGRAM)
                # A full send buffer (an address that does not answer ARP fills it) drops, and must not block.
                sock.setblocking(False)
                self._sock = sock
            # Not connected: a connected socket reports an absent exporter at the cost of the next metric.
            self._sock.sendto(line, self._address.current)  # type: ignore[arg-type]
        except (OSError, AttributeError, TypeError):  # closed or forgotten by another thread: as lost as on the wire
            pass

    def _send_what_waited(self) -> None:
        found = self._address.current is not None
        while self._waiting:
            try:
                line = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            if found:
                self._transmit(line)


def _refuse(stat: object, value: object) -> None:
    log.debug("not a metric: %r with value %r", stat, value, exc_info=True)
