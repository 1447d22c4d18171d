"""What many DAG files cost: until they are known, read again, an edit of one is known, and while nothing happens.

A round of parsing is timed from one reading of a file to its next, as Airflow keeps it with each DAG. Its own metric,
`dag_processing.total_parse_time`, is of what was due when the queue was last empty, which is often a single file.
"""

from __future__ import annotations

import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ops import compose, settings_file
from ops.bench import prometheus_figures
from ops.bench.benches import idle, latency
from ops.bench.statistics import shown
from ops.bench.targets import quiet, whole
from ops.bench.workloads import REPORT_SECONDS, seconds_between
from ops.clients.airflow import dag_path
from ops.dag_file import DELETE_SECONDS
from ops.project import dags_folder
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.clients.airflow import AirflowClient
    from ops.project import Project

NAME = "dag-files"
SIZES = (10, 100, 1_000)
WATCHED = 10
"""Files of each size, evenly spread, that are looked at and edited: to ask for all would be a load of its own."""
IDLE_SECONDS = 30.0
SENTENCE = (
    "So many files of one small paused DAG each: until Airflow knows them all; from one reading of a file to its next; "
    f"until it knows that {WATCHED} of them were edited; runs of two tasks, and {IDLE_SECONDS:.0f} s without a load, "
    "meanwhile."
)
KNOWN, AGAIN = "seconds until all are known", "seconds from one reading of a file to its next"
READING, EDITED = "seconds to read a file", f"seconds until {WATCHED} edited files are known"

FOLDER: Final = "bench_files"
TAG, WATCHED_TAG = "bench-files", "bench-files-watched"
TEXT: Final = '''\
"""A DAG of the bench dag-files."""

from datetime import UTC, datetime

from airflow.sdk import DAG, task

with DAG(
    dag_id="{dag_id}",
    description="{description}",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=True,
    tags={tags},
):

    @task
    def nothing() -> None:
        pass

    nothing()
'''
GONE_SECONDS = 300.0
AT_ONCE = 4
"""DAGs that are removed at a time."""
REMEMBER = ("statsd-exporter", "otel-collector")
"""What keeps a file's series for as long as it runs."""


def named(files: int) -> str:
    """A number of files as a side's name."""
    return f"{files:,} files"


def patience(files: int) -> float:
    """Seconds to wait for so many files to be read: one core for three seconds each would be slow."""
    return 120.0 + 3.0 * files


def write(folder: Path, numbers: Sequence[int], watched: Sequence[int], description: str) -> None:
    """Files that the containers' user can read; those that are there are overwritten.

    Args:
        folder: where.
        numbers: which.
        watched: those of all files that have WATCHED_TAG.
        description: of each DAG.
    """
    for number in numbers:
        dag_id = f"bench_file_{number:04}"
        tags = [TAG, WATCHED_TAG] if number in watched else [TAG]
        part = folder / f"{dag_id}.part"
        part.write_text(TEXT.format(dag_id=dag_id, description=description, tags=tags), encoding="utf-8")
        part.chmod(0o644)
        part.replace(folder / f"{dag_id}.py")  # half a file that is read would be looked at again much later


def known(api: AirflowClient) -> int:
    """How many DAGs of such files Airflow has read, and still finds."""
    total: int = api.ask("GET", "/dags", params={"tags": TAG, "limit": 1})["total_entries"]
    return total


def watched_dags(api: AirflowClient) -> list[dict[str, Any]]:
    """The DAGs of the files that are looked at, as the API has them."""
    found: list[dict[str, Any]] = api.ask("GET", "/dags", params={"tags": WATCHED_TAG, "limit": WATCHED})["dags"]
    return found


def remove(folder: Path, api: AirflowClient, report: Callable[[str], None]) -> None:
    """Files, DAGs and their rows; those of a bench that was killed too.

    Args:
        folder: where the files are.
        api: Airflow's.
        report: Shows a line to people.
    """
    if folder.exists():
        shutil.rmtree(folder)
    # Not before Airflow knows that the files are gone: it would make the DAGs anew.
    wait(lambda: not known(api), GONE_SECONDS, "the DAGs of the bench's files are gone", report)
    ids = api.dag_ids(tags=TAG, exclude_stale=False)

    def delete(dag_id: str) -> None:
        api.ask("DELETE", dag_path(dag_id), missing=True, timeout=DELETE_SECONDS)

    said_at = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, _ in enumerate(pool.map(delete, ids), start=1):
            if time.monotonic() - said_at > REPORT_SECONDS:
                report(f"{number:,} of {len(ids):,} DAGs are removed")
                said_at = time.monotonic()


def forget(side: Side) -> None:
    """Nothing of the files is left in telemetry either: a thousand histograms would be a load on what comes after."""
    found = compose.instances(side.project)
    if keepers := [one.id for service in REMEMBER for one in found.get(service, [])]:
        compose.docker("restart", *keepers)


@contextmanager
def in_place(folder: Path, files: int, side: Side, report: Callable[[str], None]) -> Iterator[range]:
    """The files are there for as long as the block lasts; then nothing of them is left.

    Yields:
        The numbers of those that are looked at.
    """
    remove(folder, side.api, report)
    watched = range(0, files, files // WATCHED)
    try:
        folder.mkdir()
        folder.chmod(0o755)
        write(folder, range(files), watched, "as it was")
        yield watched
    finally:
        try:
            remove(folder, side.api, report)
        finally:
            forget(side)


def readings(api: AirflowClient, files: int, report: Callable[[str], None]) -> Sample:
    """How long a file waits for its next reading, and how long one takes; the median of those that are looked at."""
    first = {dag["dag_id"]: dag["last_parsed_time"] for dag in watched_dags(api)}
    gaps: dict[str, float] = {}

    def all_again() -> bool:
        for dag in watched_dags(api):
            dag_id, last = dag["dag_id"], dag["last_parsed_time"]
            if last != first[dag_id]:
                gaps.setdefault(dag_id, seconds_between(first[dag_id], last))
        return len(gaps) == len(first)

    wait(all_again, patience(files), "every file was read again", report)
    durations = [dag["last_parse_duration"] for dag in watched_dags(api)]
    return {AGAIN: statistics.median(gaps.values()), READING: statistics.median(durations)}


def measure(project: Project, side: Side, files: int, report: Callable[[str], None]) -> Sample:
    """Once, with so many files."""
    settings, api = settings_file.read(project), side.api
    folder = dags_folder(project, settings) / FOLDER
    with in_place(folder, files, side, report) as watched:
        started = time.monotonic()
        wait(lambda: known(api) == files, patience(files), f"Airflow knows {files:,} more DAGs", report)
        sample = {KNOWN: time.monotonic() - started, **readings(api, files, report)}

        started, description = time.monotonic(), "as it was edited"
        write(folder, watched, watched, description)
        edited = f"Airflow knows that {len(watched)} files were edited"
        wait(
            lambda: all(dag["description"] == description for dag in watched_dags(api)), patience(files), edited, report
        )
        sample[EDITED] = time.monotonic() - started

        return {
            **sample,
            **latency(side, report),
            **prometheus_figures.asked(settings),
            **idle(side, report, IDLE_SECONDS),
        }


def compare(
    project: Project, side: Side, rounds: int, taken: dict[str, list[Sample]], report: Callable[[str], None]
) -> None:
    """Every number of files, ascending, once a round: a Comparison's."""
    for number in range(1, rounds + 1):
        for files in SIZES:
            whole(side, report)
            quiet(side, report)
            sample = measure(project, side, files, report)
            taken.setdefault(named(files), []).append(sample)
            told = ", ".join(f"{shown(sample[name])} {name}" for name in (KNOWN, AGAIN, EDITED))
            report(f"round {number} of {rounds}, {named(files)}: {told}")
