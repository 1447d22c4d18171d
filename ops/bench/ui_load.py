"""Clients that request pages of the UI and the REST API without pause, while tasks run."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import httpx

from ops.bench.workloads import FAN_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CLIENTS = 16
TIMEOUT = 30.0
"""Seconds until a client gives up a request."""
LOAD_SECONDS = 120.0
"""Longest UI traffic: an API that it stalls does not recover before the traffic stops."""
PAGES = (
    "/",
    "/ui/dags?limit=50",
    "/ui/dashboard/dag_stats",
    f"/ui/grid/runs/{FAN_OUT}?limit=25",
    "/api/v2/dags?limit=100",
    f"/api/v2/dags/{FAN_OUT}/dagRuns?limit=25",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100",
)
"""Pages of the UI with the requests that they make, and lists of the REST API."""


@dataclass
class Responses:
    """Outcome of the requests.

    Attributes:
        seconds: Duration of each successful request.
        failed: Number of requests with an error status or no answer.
    """

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


def request_pages(
    connect: Callable[[], httpx.Client], first: int, stop: threading.Event, seconds: float = LOAD_SECONDS
) -> Responses:
    """Request all pages in turn with one client, until it is stopped or the time is up.

    Args:
        connect: Returns a new client.
        first: Index of the first page.
        stop: Stops the client after its current request.
        seconds: Longest duration.
    """
    begun = time.monotonic()
    responses = Responses()
    pages = PAGES[first % len(PAGES) :] + PAGES[: first % len(PAGES)]
    with connect() as http:
        for page in itertools.cycle(pages):
            started = time.monotonic()
            if stop.is_set() or started - begun > seconds:
                return responses
            try:
                is_success = http.get(page).is_success
            except httpx.HTTPError:
                is_success = False
            if is_success:
                responses.seconds.append(time.monotonic() - started)
            else:
                responses.failed += 1
    return responses


@contextmanager
def ui_traffic(
    url: str, headers: Mapping[str, str], clients: int = CLIENTS, transport: httpx.BaseTransport | None = None
) -> Iterator[Responses]:
    """Run clients concurrently for the duration of the block, for LOAD_SECONDS at most.

    Args:
        url: Address of Airflow's API server.
        headers: Headers that authenticate the clients.
        clients: Number of clients.
        transport: Replaces the network in tests.

    Yields:
        Responses of all clients, filled in when the block ends.
    """
    connect = partial(httpx.Client, base_url=url, headers=dict(headers), timeout=TIMEOUT, transport=transport)
    stop, total = threading.Event(), Responses()
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(request_pages, connect, number, stop) for number in range(clients)]
        try:
            yield total
        finally:
            stop.set()
            for future in futures:
                responses = future.result()
                total.seconds += responses.seconds
                total.failed += responses.failed
