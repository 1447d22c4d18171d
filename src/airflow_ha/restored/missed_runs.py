"""The runs that were scheduled between the restored point and now, and what Airflow does about them at the release.

Each of them may have run before the loss: the restored database does not know. A run that Airflow creates again repeats
its side effects.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from sqlalchemy.orm import Session

MOST_RUNS: Final = 10_000
"""Runs of one DAG that are counted: a week of a DAG that runs every minute."""

CATCHUP: Final = "the release starts all; if they must not run twice, set catchup=False in the DAG file before"
NO_CATCHUP: Final = "the release starts {started}; start others that did not run before the loss by a backfill"
NOTHING: Final = "nothing: no run was scheduled"
ASSETS: Final = "asset events since then are not restored: trigger the DAG if its assets changed"


def missed_runs(session: Session, dags: Collection[str], since: datetime) -> list[dict[str, Any]]:
    """Return a row for each DAG that has a schedule, with the first and last missed run.

    `starts` is the number of runs that the release starts.

    Args:
        session: Of the metadata database.
        dags: The DAGs that were unpaused.
        since: The restored point.
    """
    rows = [missed_runs_of(session, dag_id, since) for dag_id in sorted(dags)]
    return [row for row in rows if row]


def missed_runs_of(session: Session, dag_id: str, since: datetime) -> dict[str, Any] | None:
    """Return the row of one DAG; None if it starts only when it is triggered."""
    from airflow._shared.timezones import timezone
    from airflow.models.serialized_dag import SerializedDagModel

    try:
        dag = SerializedDagModel.get_dag(dag_id, session=session)
    except Exception as error:  # a timetable of a plugin that is gone
        return {
            "dag_id": dag_id,
            "schedule": "unknown",
            "todo": f"check by hand: the stored DAG does not load: {error}",
        }
    if dag is None:
        return {"dag_id": dag_id, "schedule": "unknown", "todo": "check by hand: the DAG is not stored"}
    assets = sorted(f"{key.name}" for key, _ in dag.timetable.asset_condition.iter_assets())
    if not dag.timetable.can_be_scheduled and not assets:
        return None
    last, now, since = last_run(session, dag), timezone.utcnow(), timezone.coerce_datetime(since)
    missed = list(islice(scheduled_between(dag, last, since, now), MOST_RUNS))
    started = list(islice(started_at_release(dag, last, now), MOST_RUNS))
    return {
        "dag_id": dag_id,
        "schedule": dag.timetable.summary,
        "catchup": dag.catchup,
        "missed": len(missed),
        "first": missed[0].isoformat(timespec="minutes") if missed else None,
        "last": missed[-1].isoformat(timespec="minutes") if missed else None,
        "starts": len(started),
        "assets": assets,
        "todo": what_to_do(dag.catchup, len(missed), len(started), assets),
    }


def what_to_do(catchup: bool, missed: int, started: int, assets: Collection[str]) -> str:
    """Return the advice for a DAG's missed runs."""
    advice = [ASSETS] if assets else []
    if missed:
        advice.append(CATCHUP if catchup else NO_CATCHUP.format(started="the last" if started else "none"))
    return "; ".join(advice) or NOTHING


def last_run(session: Session, dag: Any) -> Any:
    """Return the DagRunInfo of the last scheduled or backfilled run, as the DAG processor finds it; or None."""
    from airflow.dag_processing import collection

    # Private, and the only code that defines on which run the next one is based.
    statement = (
        collection._get_latest_runs_stmt_partitioned if dag.timetable.partitioned else collection._get_latest_runs_stmt
    )
    run = session.scalar(statement(dag_id=dag.dag_id))
    return run and dag.timetable.run_info_from_dag_run(dag_run=run)


def scheduled_between(dag: Any, last: Any, since: datetime, now: datetime) -> Iterator[datetime]:
    """Yield when the runs after the last known one were due, whatever `catchup` is."""
    from airflow.timetables.base import TimeRestriction

    # Without a last run the timetable begins at the start date, which can be years ago.
    earliest = dag.start_date if last else max(filter(None, (dag.start_date, since)))
    restriction = TimeRestriction(earliest=earliest, latest=dag.end_date, catchup=True)
    info = last
    while info := dag.timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction):
        if info.run_after > now:
            return
        if info.run_after > since:
            yield info.run_after


def started_at_release(dag: Any, last: Any, now: datetime) -> Iterator[datetime]:
    """Yield when the runs were due that schedulers create once the DAG is unpaused."""
    info = last
    while info := dag.next_dagrun_info(last_automated_run_info=info):
        if info.run_after > now:
            return
        yield info.run_after
