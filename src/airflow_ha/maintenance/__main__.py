"""Maintenance: `python -m airflow_ha.maintenance {serve | run | dry-run}`.

The service runs `serve`: every night everything, and every ten minutes the logs, before the disk is full. `./ops/stack
maintenance` runs the other two.

On a database with old rows nothing is removed until an operator has run it once: an upgrade of the stack, or the
restore of an old backup, must not delete a history that nobody wanted to lose. A new stack has nothing to remove, and
needs no operator.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_ha.health.freshness import MAINTENANCE_FILE
from airflow_ha.maintenance import record, retention, rows, work
from airflow_ha.maintenance.pace import Pace
from airflow_ha.maintenance.removal import Removal
from airflow_ha.secret_masking import SECRETS
from airflow_ha.telemetry.statsd import TaggedStatsClient

if TYPE_CHECKING:
    from airflow_ha.maintenance.record import Record
    from airflow_ha.maintenance.retention import Limits
    from airflow_ha.maintenance.work import Places

INTERVAL: Final = 60.0
"""Seconds between two checks whether a run is due."""
LOGS_INTERVAL: Final = 600.0
RETRY, REPEAT = timedelta(hours=1), timedelta(days=1)
"""Time from a failed run to the next one, and from one report for the operator to the next."""
UNAPPROVED: Final = "waits for approval: run ./ops/stack maintenance"
FAILED, BUSY = 1, os.EX_TEMPFAIL


def main(arguments: list[str]) -> int:
    """Run the command that the arguments name, and return its exit code."""
    kept = retention.read()
    places = work.Places(
        rows.connect((SECRETS / "sql_alchemy_conn").read_text().strip()),
        rows.connect((SECRETS / "celery_results_owner").read_text().strip()),
    )
    match arguments:
        case ["serve"]:
            serve(places, kept)
        case ["dry-run"]:
            return report(places, kept)
        case ["run"]:
            return run_once(places, kept)
    sys.exit(__doc__)


def report(places: Places, kept: Limits) -> int:
    """Print what a run would remove."""
    errors = 0
    for result in work.remove(places, kept, Pace(), is_dry_run=True):
        log(result)
        errors += isinstance(result, str)
    return FAILED if errors else 0


def run_once(places: Places, kept: Limits) -> int:
    """Remove what is old; this is the operator's approval of all later runs."""
    try:
        record.read(places.metadata)
        with record.sole_run(places.metadata):
            record.approve(places.metadata)
            return 0 if run(places, kept, client()) else FAILED
    except record.BusyError as error:
        print(error, file=sys.stderr)
        return BUSY


def serve(places: Places, kept: Limits) -> None:
    """Run every night, for as long as the process lives."""
    statsd = client()
    last_try = datetime.min.replace(tzinfo=UTC)
    logs_at = time.monotonic() + LOGS_INTERVAL
    while True:
        try:
            Path(MAINTENANCE_FILE).touch()
            now, state = datetime.now(UTC), record.read(places.metadata)
            is_approved = state.is_approved(now)
            is_rested = now - last_try >= (RETRY if is_approved else REPEAT)
            if is_rested and is_due(now, state.succeeded, kept.hour):
                last_try = now
                with record.sole_run(places.metadata):
                    run_if_approved(places, kept, statsd, is_approved=is_approved)
            elif is_approved and time.monotonic() > logs_at:
                logs_at = time.monotonic() + LOGS_INTERVAL
                with record.sole_run(places.metadata):
                    removed = work.remove_logs(places, kept, now.timestamp(), Pace(), is_dry_run=False)
                if removed.number:
                    log(removed)
                    count(removed, statsd)
            show(record.read(places.metadata), statsd)
        except Exception as error:  # an outage of Postgres, or an operator's own run
            log(work.first_line(error))
        time.sleep(INTERVAL)


def is_due(now: datetime, succeeded: datetime | None, hour: int) -> bool:
    """Return whether no run has succeeded since the hour last came."""
    start = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    if start > now:
        start -= timedelta(days=1)
    return succeeded is None or succeeded < start


def run_if_approved(places: Places, kept: Limits, statsd: TaggedStatsClient, *, is_approved: bool) -> None:
    """Run, or print what an operator has to approve; nothing to remove needs no approval."""
    if not is_approved:
        results = list(work.remove(places, kept, Pace(), is_dry_run=True))
        if any(isinstance(result, str) or result.number for result in results):
            for result in results:
                log(result)
            log(f"nothing is removed: maintenance {UNAPPROVED}")
            return
        record.approve(places.metadata)
    run(places, kept, statsd)


def run(places: Places, kept: Limits, statsd: TaggedStatsClient) -> bool:
    """Run all steps, and return whether all succeeded."""
    results = []
    for result in work.remove(places, kept, Pace(), is_dry_run=False):
        log(result)
        results.append(result)
        if isinstance(result, Removal):
            count(result, statsd)
    is_success = all(isinstance(result, Removal) for result in results)
    if is_success:
        record.succeed(places.metadata)
    log("maintenance succeeded" if is_success else "maintenance failed")
    return is_success


def client() -> TaggedStatsClient:
    """Return the client of Airflow's own settings."""
    host, port = (os.environ[f"AIRFLOW__METRICS__STATSD_{name}"] for name in ("HOST", "PORT"))
    return TaggedStatsClient(host, int(port), prefix="airflow")


def count(result: Removal, statsd: TaggedStatsClient) -> None:
    """Count what was removed; a kind of which nothing was ever removed has a series too."""
    statsd.incr(f"ha_maintenance_removed,kind={result.kind}", result.number)


def show(state: Record, statsd: TaggedStatsClient) -> None:
    """Send the time of the last success, and write for the health check that the service is alive."""
    Path(MAINTENANCE_FILE).write_text("" if state.is_approved(datetime.now(UTC)) else UNAPPROVED)
    statsd.gauge("ha_maintenance_last_success_timestamp_seconds", (state.succeeded or state.first_seen).timestamp())


def log(line: object) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
