"""What a metric costs the process that sends it: `python -m ops.bench.statsd_client_cost`.

Plain StatsClient, as Airflow uses it by default, beside ours; with an exporter on loopback, with nobody listening
there, and (ours only: the plain one fails at its start) with a host name that does not exist. Both get the same stat
with three Influx tags; the clients take turns, so that a busy machine hurts both.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from statsd import StatsClient  # type: ignore[import-untyped]

from airflow_ha.telemetry.statsd import TaggedStatsClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAT = "ti.finish,dag_id=ml_pipeline_dag,task_id=train_model,state=success"
ABSENT = "exporter.invalid"
"""A name that never exists (RFC 2606)."""

CALLS: dict[str, Callable[[StatsClient], None]] = {
    "incr": lambda client: client.incr(STAT, 1, 1),
    "timing": lambda client: client.timing(STAT, 1234.5),
    "gauge": lambda client: client.gauge(STAT, 42, 1, False),
}


@contextmanager
def exporter(*, there: bool) -> Iterator[int]:
    """A UDP port on loopback, that somebody listens on or nobody.

    Args:
        there: whether somebody listens.

    Yields:
        The port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        if not there:
            listening.close()
        # Nobody reads: a full buffer drops, and a reader would share the sender's processor.
        yield port


def microseconds(call: Callable[[StatsClient], None], client: StatsClient, metrics: int) -> float:
    """The mean cost of one metric over a round.

    Args:
        call: sends one.
        client: by this client.
        metrics: how many to send.

    Returns:
        Microseconds.
    """
    started = time.perf_counter()
    for _ in range(metrics):
        call(client)
    return (time.perf_counter() - started) / metrics * 1e6


def compare(clients: list[StatsClient], call: Callable[[StatsClient], None], rounds: int, metrics: int) -> list[float]:
    """Each client's cost of one metric, the median of rounds in turn, and the last's beside the first's.

    Args:
        clients: who sends.
        call: sends one metric.
        rounds: how many rounds each.
        metrics: how many a round.

    Returns:
        Microseconds in the clients' order, then the median of the rounds' ratios.
    """
    for client in clients:
        microseconds(call, client, metrics)  # warm up
    taken = [[microseconds(call, client, metrics) for client in clients] for _ in range(rounds)]
    return [median(each) for each in zip(*taken, strict=True)] + [median(each[-1] / each[0] for each in taken)]


def main(
    rounds: Annotated[int, typer.Option(help="Rounds, of which the median counts.")] = 101,
    metrics: Annotated[int, typer.Option(help="Metrics a round.")] = 500,
) -> None:
    """Print what one metric costs."""
    table = Table(title=f"µs a metric with 3 tags (median of {rounds} rounds of {metrics})")
    for heading in ("exporter", "call", "StatsClient", "TaggedStatsClient", "ratio"):
        table.add_column(heading, justify="left" if heading in ("exporter", "call") else "right")
    os.environ.setdefault("AIRFLOW_HA_COMPONENT", "scheduler")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"] = directory
        for there in (True, False):
            with exporter(there=there) as port:
                clients = [StatsClient("127.0.0.1", port, "airflow"), TaggedStatsClient("127.0.0.1", port, "airflow")]
                for name, call in CALLS.items():
                    plain, tagged, ratio = compare(clients, call, rounds, metrics)
                    where = "there" if there else "not there"
                    table.add_row(where, name, f"{plain:.2f}", f"{tagged:.2f}", f"{ratio:.2f}")
        nowhere = TaggedStatsClient(ABSENT, 9125, "airflow")
        for thread in threading.enumerate():
            if thread.name == "statsd-address":
                thread.join(30)
        for name, call in CALLS.items():
            tagged, _ = compare([nowhere], call, rounds, metrics)
            table.add_row("no such host", name, "fails at start", f"{tagged:.2f}", "")
        started = time.perf_counter()
        for _ in range(1000):
            TaggedStatsClient("127.0.0.1", 9125, "airflow").incr(STAT)
        first = (time.perf_counter() - started) * 1000
        started = time.perf_counter()
        for _ in range(1000):
            TaggedStatsClient(ABSENT, 9125, "airflow").incr(STAT)
        absent = (time.perf_counter() - started) * 1000
    Console().print(table)
    print(
        f"A new process's first metric, client and all: {first:.0f} µs by address, "
        f"{absent:.0f} µs by a name that another process has looked up."
    )


if __name__ == "__main__":
    typer.run(main)
