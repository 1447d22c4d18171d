"""What tasks really did, written down outside Airflow, and what can be counted from it."""

from __future__ import annotations

import csv
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, cast

from ops import compose
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Event = Literal["start", "alive", "end"]
START_SECONDS = 60.0
TABLE = (
    "CREATE TABLE ledger (run text, task text, number int, attempt int, event text, host text,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
# The image's own entry would want a password; nothing but the project's containers reaches this one.
SERVE = (
    "initdb --pgdata=/tmp/data --auth=trust --username=postgres >/dev/null"
    " && echo 'host all all all trust' >>/tmp/data/pg_hba.conf"
    " && exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp"
)


@dataclass(frozen=True)
class Entry:
    """One line: an attempt of a task began, goes on, or ended.

    Attributes:
        task: `short` or `long`.
        number: Which of the mapped tasks.
        attempt: Airflow's try number, from 1.
        event: start, alive (a long task says so every second or two), or end.
        host: The container it ran in.
        at: Seconds since the epoch, by the ledger's clock.
    """

    task: str
    number: int
    attempt: int
    event: Event
    host: str
    at: float


@dataclass(frozen=True)
class Ledger:
    """The container that keeps it."""

    container: str

    def query(self, statement: str) -> list[list[str]]:
        """The rows that a statement returns."""
        command = ["psql", "--host=/tmp", "--username=postgres", "--csv", "--tuples-only", f"--command={statement}"]
        return list(csv.reader(compose.docker("exec", self.container, *command).splitlines()))

    def now(self) -> float:
        """The ledger's clock."""
        return float(self.query("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    def entries(self, run: str) -> list[Entry]:
        """The lines of one run, in their order."""
        rows = self.query(
            "SELECT task, number, attempt, event, host, extract(epoch FROM at) FROM ledger"  # noqa: S608  Airflow's id
            f" WHERE run = '{run}' ORDER BY at"
        )
        return [
            Entry(task, int(number), int(attempt), cast("Event", event), host, float(at))
            for task, number, attempt, event, host, at in rows
        ]


@contextmanager
def keeping(project: str, image: str, network: str = "execution") -> Iterator[Ledger]:
    """A ledger on the tasks' network, for as long as the block lasts.

    Args:
        project: The compose project's name.
        image: Postgres'.
        network: The one of the project's networks that tasks are on.

    Raises:
        StackError: It does not start.
    """
    name = f"{project}-drill-ledger"
    subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
    compose.docker(
        *("run", "--detach", "--name", name, "--network", f"{project}_{network}", "--user", "999:999", "--init"),
        *("--tmpfs=/tmp:mode=1777", "--memory=256m", "--entrypoint=sh", image, "-c", SERVE),
    )
    try:
        ledger = Ledger(name)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                ledger.query(TABLE)
                break
            except StackError as error:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"the drills' ledger does not start: {error.what}", where=name, code=FAILURE
                    ) from error
                time.sleep(0.5)
        yield ledger
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


# --- What can be counted


def lost(entries: Iterable[Entry], wanted: dict[str, int]) -> int:
    """How many tasks never came to their end.

    Args:
        entries: of one run.
        wanted: how many tasks of each name there are.
    """
    ended = {(entry.task, entry.number) for entry in entries if entry.event == "end"}
    return sum((task, number) not in ended for task, count in wanted.items() for number in range(count))


def doubled(entries: Iterable[Entry]) -> int:
    """How many tasks came to their end more than once."""
    ends = Counter((entry.task, entry.number) for entry in entries if entry.event == "end")
    return sum(count > 1 for count in ends.values())


def overlapping(entries: Iterable[Entry]) -> int:
    """How many tasks ran twice at once: an attempt began before the last sign of life of an earlier one."""
    first: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    last: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for entry in entries:
        task = (entry.task, entry.number)
        first[task].setdefault(entry.attempt, entry.at)
        last[task][entry.attempt] = entry.at
    return sum(
        any(first[task][later] < ends[earlier] for later in ends for earlier in ends if earlier < later)
        for task, ends in last.items()
    )


def attempts_lost(entries: Iterable[Entry]) -> int:
    """How many attempts began and were not the one that counted: the attempts of all tasks beyond the first."""
    # One that never got to its first line shows in the number of the next.
    return sum(max(numbers) - 1 for numbers in attempts(entries).values())


def silent(entries: Iterable[Entry]) -> list[tuple[str, int, int]]:
    """The attempts that another followed, and that never got to their first line: task, number, attempt."""
    return [
        (*task, attempt)
        for task, numbers in attempts(entries).items()
        for attempt in range(1, max(numbers))
        if attempt not in numbers
    ]


def attempts(entries: Iterable[Entry]) -> dict[tuple[str, int], set[int]]:
    """The attempts of each task that left a line."""
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for entry in entries:
        found[entry.task, entry.number].add(entry.attempt)
    return found


def interruption(entries: Sequence[Entry], since: float) -> float:
    """The longest time without the end of a short task after a moment, seconds; the stream's own pace is part of it."""
    moments = [since, *(entry.at for entry in entries if entry.task == "short" and entry.event == "end")]
    after = sorted(moment for moment in moments if moment >= since)
    return max((later - earlier for earlier, later in pairwise(after)), default=0.0)


def running_on(entries: Iterable[Entry], hosts: set[str], at: float) -> set[tuple[str, int]]:
    """The tasks that were under way on these hosts at a moment."""
    begun: dict[tuple[str, int], str] = {}
    for entry in entries:
        if entry.at > at:
            break
        if entry.event == "start":
            begun[entry.task, entry.number] = entry.host
        elif entry.event == "end":
            begun.pop((entry.task, entry.number), None)
    return {task for task, host in begun.items() if host in hosts}


def run_again_after(entries: Iterable[Entry], tasks: set[tuple[str, int]], since: float) -> float | None:
    """Seconds from a moment until the last of these tasks had begun again, or ended; None when one never did."""
    first: dict[tuple[str, int], float] = {}
    for entry in entries:
        key = (entry.task, entry.number)
        if key in tasks and entry.at > since and entry.event != "alive":
            first.setdefault(key, entry.at - since)
    return max(first.values(), default=0.0) if tasks <= first.keys() else None
