"""The cost of many DAG files: first parse, the interval between parses, the parse of an edit, and resources at rest.

The interval between parses comes from each DAG's `last_parsed_time`. Airflow's metric `dag_processing.total_parse_time`
covers only the files that were due when the queue was last empty, often a single one.
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
from ops.bench.benches import measure_idle, measure_latency
from ops.bench.statistics import format_number
from ops.bench.targets import wait_until_idle, wait_until_ready
from ops.bench.workloads import REPORT_SECONDS, seconds_between
from ops.clients.airflow import dag_path
from ops.dag_file import DELETE_SECONDS
from ops.project import dags_folder
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target
    from ops.clients.airflow import AirflowClient
    from ops.project import Project

NAME = "dag-files"
SIZES = (10, 100, 1_000)
WATCHED = 10
"""Files of each size that are polled and edited, evenly spread; a poll of all files would be a load."""
IDLE_SECONDS = 30.0
SUMMARY = (
    "With so many files of one small paused DAG each: the time until Airflow knows them all; from one parse of a file "
    f"to its next; and until it knows that {WATCHED} of them were edited. Then, with the files in place, runs of two "
    f"tasks, and {IDLE_SECONDS:.0f} s without a load."
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
STALE_SECONDS = 300.0
"""Longest wait until Airflow has marked the DAGs of removed files as stale."""
CONCURRENT_DELETES = 4
SERIES_KEEPERS = ("statsd-exporter", "otel-collector")
"""Services that keep the series of each file until they restart."""


def variant_name(files: int) -> str:
    """Return the variant's name in the results."""
    return f"{files:,} files"


def parse_timeout(files: int) -> float:
    """Return the longest wait for a parse of all files, in seconds: 3 s each on one core would be slow."""
    return 120.0 + 3.0 * files


def write_files(folder: Path, numbers: Sequence[int], watched: Sequence[int], description: str) -> None:
    """Write or overwrite DAG files that the containers' user can read.

    Args:
        folder: Folder of the files.
        numbers: Numbers of the files to write.
        watched: Numbers of all files with WATCHED_TAG.
        description: Description of each DAG.
    """
    for number in numbers:
        dag_id = f"bench_file_{number:04}"
        tags = [TAG, WATCHED_TAG] if number in watched else [TAG]
        part = folder / f"{dag_id}.part"
        part.write_text(TEXT.format(dag_id=dag_id, description=description, tags=tags), encoding="utf-8")
        part.chmod(0o644)
        part.replace(folder / f"{dag_id}.py")  # Airflow parses a half-written file again only much later


def count_dags(api: AirflowClient) -> int:
    """Return the number of the files' DAGs in Airflow's database that are not stale."""
    total: int = api.ask("GET", "/dags", params={"tags": TAG, "limit": 1})["total_entries"]
    return total


def watched_dags(api: AirflowClient) -> list[dict[str, Any]]:
    """Return the DAGs of the watched files, as the API returns them."""
    dags: list[dict[str, Any]] = api.ask("GET", "/dags", params={"tags": WATCHED_TAG, "limit": WATCHED})["dags"]
    return dags


def remove_files(folder: Path, api: AirflowClient, report: Callable[[str], None]) -> None:
    """Remove the files, their DAGs and all rows, also those of a bench that was killed.

    Args:
        folder: Folder of the files.
        api: The stack's REST API.
        report: Shows a progress line.
    """
    if folder.exists():
        shutil.rmtree(folder)
    # Airflow would recreate a deleted DAG that was not stale yet.
    wait(lambda: not count_dags(api), STALE_SECONDS, "the DAGs of the bench's files are gone", report)
    ids = api.dag_ids(tags=TAG, exclude_stale=False)

    def delete(dag_id: str) -> None:
        api.ask("DELETE", dag_path(dag_id), missing=True, timeout=DELETE_SECONDS)

    reported_at = time.monotonic()
    with ThreadPoolExecutor(CONCURRENT_DELETES) as pool:
        for number, _ in enumerate(pool.map(delete, ids), start=1):
            if time.monotonic() - reported_at > REPORT_SECONDS:
                report(f"removed {number:,} of {len(ids):,} DAGs")
                reported_at = time.monotonic()


def restart_series_keepers(target: Target) -> None:
    """Restart the services that keep the files' series: a thousand histograms would slow down the next bench."""
    services = compose.instances(target.project)
    if keepers := [instance.id for service in SERIES_KEEPERS for instance in services.get(service, [])]:
        compose.docker("restart", *keepers)


@contextmanager
def dag_files(folder: Path, files: int, target: Target, report: Callable[[str], None]) -> Iterator[range]:
    """Keep the files in the folder for the duration of the block; then remove every trace of them.

    Yields:
        The numbers of the watched files.
    """
    remove_files(folder, target.api, report)
    watched = range(0, files, files // WATCHED)
    try:
        folder.mkdir()
        folder.chmod(0o755)
        write_files(folder, range(files), watched, "original")
        yield watched
    finally:
        try:
            remove_files(folder, target.api, report)
        finally:
            restart_series_keepers(target)


def measure_parsing(api: AirflowClient, files: int, report: Callable[[str], None]) -> Sample:
    """Measure the interval between two parses and the duration of a parse; medians over the watched files."""
    first_parses = {dag["dag_id"]: dag["last_parsed_time"] for dag in watched_dags(api)}
    intervals: dict[str, float] = {}

    def all_parsed_again() -> bool:
        for dag in watched_dags(api):
            dag_id, last = dag["dag_id"], dag["last_parsed_time"]
            if last != first_parses[dag_id]:
                intervals.setdefault(dag_id, seconds_between(first_parses[dag_id], last))
        return len(intervals) == len(first_parses)

    wait(all_parsed_again, parse_timeout(files), "every file was parsed again", report)
    durations = [dag["last_parse_duration"] for dag in watched_dags(api)]
    return {AGAIN: statistics.median(intervals.values()), READING: statistics.median(durations)}


def measure(project: Project, target: Target, files: int, report: Callable[[str], None]) -> Sample:
    """Measure all figures with so many files."""
    settings, api, timeout = settings_file.read(project), target.api, parse_timeout(files)
    folder = dags_folder(project, settings) / FOLDER
    with dag_files(folder, files, target, report) as watched:
        started = time.monotonic()
        wait(lambda: count_dags(api) == files, timeout, f"Airflow knows {files:,} more DAGs", report)
        sample = {KNOWN: time.monotonic() - started, **measure_parsing(api, files, report)}

        started, description = time.monotonic(), "edited"
        write_files(folder, watched, watched, description)
        wait(
            lambda: all(dag["description"] == description for dag in watched_dags(api)),
            timeout,
            f"Airflow knows that {len(watched)} files were edited",
            report,
        )
        sample[EDITED] = time.monotonic() - started

        return {
            **sample,
            **measure_latency(target, report),
            **prometheus_figures.query_figures(settings),
            **measure_idle(target, report, IDLE_SECONDS),
        }


def compare(measurement: Measurement) -> None:
    """Measure each number of files, ascending, once a round."""
    target, report = measurement.target, measurement.report
    for number in measurement.round_numbers():
        for files in SIZES:
            wait_until_ready(target, report)
            wait_until_idle(target, report)
            sample = measure(measurement.project, target, files, report)
            summary = ", ".join(f"{format_number(sample[name])} {name}" for name in (KNOWN, AGAIN, EDITED))
            measurement.add(number, variant_name(files), sample, summary)
