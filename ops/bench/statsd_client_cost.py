"""The cost of a metric in the process that sends it: `python -m ops.bench.statsd_client_cost`.

Compares the StatsClient that Airflow uses by default with ours: an exporter listens on loopback, or none does, or (ours
only: StatsClient fails at its start) the host name does not exist. Both send the same stat with three Influx tags.
The clients take turns, so that a busy machine slows both.
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
PORT = 9125
PREFIX = "airflow"
NEW_CLIENTS = 1000

CALLS: dict[str, Callable[[StatsClient], None]] = {
    "incr": lambda client: client.incr(STAT, 1, 1),
    "timing": lambda client: client.timing(STAT, 1234.5),
    "gauge": lambda client: client.gauge(STAT, 42, 1, False),
}


@contextmanager
def udp_port(*, is_open: bool) -> Iterator[int]:
    """Yield a UDP port on loopback, open or closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        if not is_open:
            listener.close()
        # No reader: the kernel drops what a full buffer cannot hold, and a reader would use the sender's processor.
        yield port


def microseconds(call: Callable[[StatsClient], None], client: StatsClient, metrics: int) -> float:
    """Return the mean microseconds of one call, over so many metrics."""
    started = time.perf_counter()
    for _ in range(metrics):
        call(client)
    return (time.perf_counter() - started) / metrics * 1e6


def compare(clients: list[StatsClient], call: Callable[[StatsClient], None], rounds: int, metrics: int) -> list[float]:
    """Return the microseconds of a metric with each client, then the ratio of the last client to the first.

    Args:
        clients: The clients, which take turns.
        call: Sends one metric.
        rounds: Number of rounds; the result is their median.
        metrics: Number of metrics in a round.
    """
    for client in clients:
        microseconds(call, client, metrics)  # warm-up
    samples = [[microseconds(call, client, metrics) for client in clients] for _ in range(rounds)]
    medians = [median(client_samples) for client_samples in zip(*samples, strict=True)]
    return [*medians, median(sample[-1] / sample[0] for sample in samples)]


def first_metric_cost(host: str) -> float:
    """Return the mean microseconds of a new client with its first metric."""
    started = time.perf_counter()
    for _ in range(NEW_CLIENTS):
        TaggedStatsClient(host, PORT, PREFIX).incr(STAT)
    return (time.perf_counter() - started) / NEW_CLIENTS * 1e6


def add_rows(table: Table, rounds: int, metrics: int) -> None:
    """Measure all calls on an open port, a closed port and an absent host, and add a row for each."""
    for is_open in (True, False):
        with udp_port(is_open=is_open) as port:
            clients = [StatsClient("127.0.0.1", port, PREFIX), TaggedStatsClient("127.0.0.1", port, PREFIX)]
            for name, call in CALLS.items():
                plain, tagged, ratio = compare(clients, call, rounds, metrics)
                exporter = "listens" if is_open else "does not listen"
                table.add_row(exporter, name, f"{plain:.2f}", f"{tagged:.2f}", f"{ratio:.2f}")
    absent_client = TaggedStatsClient(ABSENT, PORT, PREFIX)
    for thread in threading.enumerate():
        if thread.name == "statsd-address":
            thread.join(30)
    for name, call in CALLS.items():
        tagged, _ = compare([absent_client], call, rounds, metrics)
        table.add_row("no such host", name, "fails at start", f"{tagged:.2f}", "")


def main(
    rounds: Annotated[int, typer.Option(help="Number of rounds; the result is their median.")] = 101,
    metrics: Annotated[int, typer.Option(help="Number of metrics in a round.")] = 500,
) -> None:
    """Print the cost of one metric."""
    table = Table(title=f"µs a metric with 3 tags (median of {rounds} rounds of {metrics})")
    for heading in ("exporter", "call", "StatsClient", "TaggedStatsClient", "ratio"):
        table.add_column(heading, justify="left" if heading in ("exporter", "call") else "right")
    os.environ.setdefault("AIRFLOW_HA_COMPONENT", "scheduler")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"] = directory
        add_rows(table, rounds, metrics)
        by_address, by_name = first_metric_cost("127.0.0.1"), first_metric_cost(ABSENT)
    Console().print(table)
    print(
        f"The first metric of a new process, client included: {by_address:.0f} µs by address, "
        f"{by_name:.0f} µs by a name that another process has resolved."
    )


if __name__ == "__main__":
    typer.run(main)
