"""One run of maintenance: its steps, and what each removed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from airflow_ha.maintenance import artifact_files, log_files, rows
from airflow_ha.maintenance.retention import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from airflow_ha.maintenance.pace import Pace
    from airflow_ha.maintenance.removal import Removal
    from airflow_ha.maintenance.retention import Limits


@dataclass(frozen=True)
class Places:
    """Where old things are.

    Attributes:
        metadata: Airflow's database.
        results: The database of Celery's results.
        logs: The folder of task logs.
        artifacts: The folder of artifacts.
    """

    metadata: Engine
    results: Engine
    logs: Path = Path("/opt/airflow/logs")
    artifacts: Path = Path("/opt/airflow/artifacts")


def remove(places: Places, limits: Limits, pace: Pace, *, is_dry_run: bool) -> Iterator[Removal | str]:
    """Remove everything that is old, or count it.

    Yields:
        The result of each step, or the error of one that failed; the others go on.
    """
    now = datetime.now(UTC)
    steps = [
        *row_steps(places, limits, now, pace),
        *file_steps(places, limits, now.timestamp(), pace),
    ]
    for name, step in steps:
        try:
            yield step(is_dry_run=is_dry_run)
        except Exception as error:  # the other steps are as important
            yield f"cannot remove {name.replace('_', ' ')}: {first_line(error)}"
    if not is_dry_run:
        for engine in (places.metadata, places.results):
            try:
                rows.vacuum(engine, pace)
            except Exception as error:
                yield f"cannot vacuum {engine.url.database}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """Return an error in one line, without the statement that SQLAlchemy adds."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def row_steps(
    places: Places, limits: Limits, now: datetime, pace: Pace
) -> Iterator[tuple[str, Callable[..., Removal]]]:
    """Yield the name and the function of each step in the databases."""
    for rule in rows.metadata_rules(limits, rows.last_runs(places.metadata)):
        yield rule.kind, partial(rows.remove, places.metadata, rule, now, pace)
    for rule in rows.RESULT_RULES:
        yield rule.kind, partial(rows.remove, places.results, rule, now, pace)


def file_steps(places: Places, limits: Limits, now: float, pace: Pace) -> Iterator[tuple[str, Callable[..., Removal]]]:
    """Yield the name and the function of each step in the file system; none for what is kept for ever."""
    yield log_files.KIND, partial(remove_logs, places, limits, now, pace)
    before = now - limits.artifacts_days * DAY if limits.artifacts_days else 0.0
    if limits.artifacts_days:
        yield "run_artifacts", partial(artifact_files.remove_run_folders, places.artifacts, before, pace)
    if limits.models:
        yield "models", partial(artifact_files.remove_models, places.artifacts, limits.models, before, pace)
    if xcoms := artifact_files.xcom_folder(os.environ):
        existing = partial(all_runs, places.metadata)
        yield "xcom_objects", partial(artifact_files.remove_xcoms, xcoms, existing, now - DAY, pace)


def remove_logs(places: Places, limits: Limits, now: float, pace: Pace, *, is_dry_run: bool) -> Removal:
    """Remove the logs that are old, and the oldest ones until they fit."""
    oldest = log_files.oldest_allowed(places.logs, limits, now, pace)
    monitoring = rows.monitoring_dags(places.metadata) if limits.monitoring_days else set()

    def before(dag_id: str | None) -> float:
        days = [limits.logs_days, limits.monitoring_days if dag_id in monitoring else 0]
        return max(oldest, *(now - each * DAY for each in days if each), 0.0)

    return log_files.remove(
        places.logs, before, partial(rows.active_runs, places.metadata), pace, is_dry_run=is_dry_run
    )


def all_runs(engine: Engine, dag_id: str) -> set[str]:
    """Return the ids of all runs of a DAG."""
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT run_id FROM dag_run WHERE dag_id = :dag_id"), {"dag_id": dag_id}))
