"""People who use the UI and the REST API without pause, while tasks run."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from ops.bench.workloads import FAN_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLIENTS = 16
TIMEOUT = 30.0
"""Seconds until a person gives up."""
STAY = 120.0
"""Seconds until all of them leave, whatever they have seen: as long as they stay, an API that they have brought to a
stand remains there."""
PAGES = (
    "/",
    "/ui/dags?limit=50",
    "/ui/dashboard/dag_stats",
    f"/ui/grid/runs/{FAN_OUT}?limit=25",
    "/api/v2/dags?limit=100",
    f"/api/v2/dags/{FAN_OUT}/dagRuns?limit=25",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100",
)
"""What they open, in turn: the UI's pages with what they load, and lists of the REST API."""


@dataclass
class Visits:
    """What they saw: the seconds of each request that was answered, and how many were not, or with a refusal."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


def visit(
    url: str,
    headers: Mapping[str, str],
    first: int,
    stop: threading.Event,
    transport: httpx.BaseTransport | None,
    stay: float = STAY,
) -> Visits:
    """One person, from a page of their own on, until told to stop, or for so many seconds."""
    arrived = time.monotonic()
    seen = Visits()
    pages = PAGES[first % len(PAGES) :] + PAGES[: first % len(PAGES)]
    with httpx.Client(base_url=url, headers=dict(headers), timeout=TIMEOUT, transport=transport) as http:
        for page in itertools.cycle(pages):
            started = time.monotonic()
            if stop.is_set() or started - arrived > stay:
                return seen
            try:
                answered = http.get(page).is_success
            except httpx.HTTPError:
                answered = False
            if answered:
                seen.seconds.append(time.monotonic() - started)
            else:
                seen.failed += 1
    return seen


@contextmanager
def crowd(
    url: str, headers: Mapping[str, str], clients: int = CLIENTS, transport: httpx.BaseTransport | None = None
) -> Iterator[Visits]:
    """So many people at once, for as long as the block lasts, or until they leave.

    Args:
        url: Where Airflow's pages are.
        headers: With which they are logged in.
        clients: How many.
        transport: For tests: answers instead of the network.

    Yields:
        What they saw, complete after the block.
    """
    stop, all_of_them = threading.Event(), Visits()
    with ThreadPoolExecutor(clients) as pool:
        people = [pool.submit(visit, url, headers, number, stop, transport) for number in range(clients)]
        try:
            yield all_of_them
        finally:
            stop.set()
            for person in people:
                seen = person.result()
                all_of_them.seconds += seen.seconds
                all_of_them.failed += seen.failed
