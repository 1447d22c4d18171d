"""The ledger: a record, outside Airflow, of what tasks did, and the figures that are counted from it."""

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
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Event = Literal["start", "alive", "end"]
TaskKey = tuple[str, int]
"""A mapped task: its task id and its map index."""

REPORT_SECONDS = 1.0
"""From a task's last statement until Airflow stored its success: a call and a commit, on a busy machine."""
START_SECONDS = 60.0
TABLE = (
    "CREATE TABLE ledger (run text, task text, map_index int, try_number int, event text, host text,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
# The image's own entry point requires a password. Only the project's containers can reach this database.
SERVE = (
    "initdb --pgdata=/tmp/data --auth=trust --username=postgres >/dev/null"
    " && echo 'host all all all trust' >>/tmp/data/pg_hba.conf"
    " && exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp"
)


@dataclass(frozen=True)
class Entry:
    """One event of one try of a task.

    Attributes:
        task: `short` or `long`.
        map_index: The index of the mapped task.
        try_number: Airflow's try number, from 1.
        event: start, alive (a long task writes it every 1.5 s), or end.
        host: The container that the try ran in.
        at: Seconds since the epoch, by the ledger's clock.
    """

    task: str
    map_index: int
    try_number: int
    event: Event
    host: str
    at: float

    @property
    def key(self) -> TaskKey:
        """The mapped task that this entry belongs to."""
        return self.task, self.map_index


@dataclass(frozen=True)
class Ledger:
    """A running ledger.

    Attributes:
        container: The name of its container, which is its host name too.
    """

    container: str

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of an SQL statement."""
        command = ["psql", "--host=/tmp", "--username=postgres", "--csv", "--tuples-only", f"--command={statement}"]
        return list(csv.reader(compose.docker("exec", self.container, *command).splitlines()))

    def now(self) -> float:
        """Return the ledger's clock, in seconds since the epoch."""
        return float(self.query("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    def entries(self, run: str) -> list[Entry]:
        """Return the entries of one DAG run in the order of their time."""
        rows = self.query(
            "SELECT task, map_index, try_number, event, host, extract(epoch FROM at)"  # noqa: S608  Airflow's id
            f" FROM ledger WHERE run = '{run}' ORDER BY at"
        )
        return [
            Entry(task, int(map_index), int(try_number), cast("Event", event), host, float(at))
            for task, map_index, try_number, event, host, at in rows
        ]


@contextmanager
def start_ledger(project: str, image: str, network: str = "execution") -> Iterator[Ledger]:
    """Run a ledger on the tasks' network for the duration of the block.

    Args:
        project: The compose project's name.
        image: A Postgres image.
        network: The network of the project that tasks use.

    Raises:
        StackError: It does not start within START_SECONDS.
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
                        f"cannot start the drills' ledger: {error.what}",
                        where=name,
                        hint=f"run docker logs {name}",
                        code=FAILURE,
                    ) from error
                time.sleep(0.5)
        yield ledger
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def lost_tasks(entries: Iterable[Entry], expected: Mapping[str, int]) -> int:
    """Return how many tasks never completed.

    Args:
        entries: The entries of one run.
        expected: The number of mapped tasks by task id.
    """
    completed = {entry.key for entry in entries if entry.event == "end"}
    return sum((task, index) not in completed for task, count in expected.items() for index in range(count))


def tasks_completed_twice(entries: Iterable[Entry]) -> int:
    """Return how many tasks completed more than once."""
    completions = Counter(entry.key for entry in entries if entry.event == "end")
    return sum(count > 1 for count in completions.values())


def unreported_completions(entries: Iterable[Entry], hosts: set[str], at: float) -> set[TaskKey]:
    """Return the tasks that completed on these hosts just before a moment, and completed again elsewhere.

    Their host was lost before Airflow stored their success: at-least-once execution runs them again.

    Args:
        entries: The ledger of a run.
        hosts: The containers that the fault ended.
        at: When the fault was injected, by the ledger's clock.
    """
    ends = [entry for entry in entries if entry.event == "end"]
    unreported = {entry.key for entry in ends if entry.host in hosts and at - REPORT_SECONDS <= entry.at <= at}
    completions = Counter(entry.key for entry in ends)
    return {key for key in unreported if completions[key] > 1}


def overlapping_tasks(entries: Iterable[Entry]) -> int:
    """Return how many tasks had a try that started before the last event of an earlier try."""
    first: dict[TaskKey, dict[int, float]] = defaultdict(dict)
    last: dict[TaskKey, dict[int, float]] = defaultdict(dict)
    for entry in entries:
        first[entry.key].setdefault(entry.try_number, entry.at)
        last[entry.key][entry.try_number] = entry.at
    return sum(
        any(first[key][later] < ends[earlier] for later in ends for earlier in ends if earlier < later)
        for key, ends in last.items()
    )


def lost_tries(entries: Iterable[Entry]) -> int:
    """Return how many tries did not count: for each task, its highest try number minus one."""
    # A try that wrote no entry is counted too: the number of the next try includes it.
    return sum(max(numbers) - 1 for numbers in tries(entries).values())


def silent_tries(entries: Iterable[Entry]) -> list[tuple[str, int, int]]:
    """Return the tries that wrote no entry and were followed by another: task id, map index and try number."""
    return [
        (*key, number)
        for key, numbers in tries(entries).items()
        for number in range(1, max(numbers))
        if number not in numbers
    ]


def tries(entries: Iterable[Entry]) -> dict[TaskKey, set[int]]:
    """Return the numbers of the tries that wrote an entry, by task."""
    numbers: dict[TaskKey, set[int]] = defaultdict(set)
    for entry in entries:
        numbers[entry.key].add(entry.try_number)
    return numbers


def longest_interruption(entries: Sequence[Entry], since: float) -> float:
    """Return the longest time without a completion of a short task after a moment, in seconds.

    It includes the normal time between two completions.
    """
    completions = [since, *(entry.at for entry in entries if entry.task == "short" and entry.event == "end")]
    after = sorted(moment for moment in completions if moment >= since)
    return max((later - earlier for earlier, later in pairwise(after)), default=0.0)


def tasks_running_on(entries: Iterable[Entry], hosts: set[str], at: float) -> set[TaskKey]:
    """Return the tasks that were running on these hosts at a moment."""
    host_of: dict[TaskKey, str] = {}
    for entry in entries:
        if entry.at > at:
            break
        if entry.event == "start":
            host_of[entry.key] = entry.host
        elif entry.event == "end":
            host_of.pop(entry.key, None)
    return {key for key, host in host_of.items() if host in hosts}


def seconds_until_rerun(entries: Iterable[Entry], tasks: set[TaskKey], since: float) -> float | None:
    """Return the seconds from a moment until all of these tasks started again or completed; None if one never did."""
    first: dict[TaskKey, float] = {}
    for entry in entries:
        if entry.key in tasks and entry.at > since and entry.event != "alive":
            first.setdefault(entry.key, entry.at - since)
    return max(first.values(), default=0.0) if tasks <= first.keys() else None
