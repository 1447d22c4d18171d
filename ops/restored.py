"""Airflow after a restore: runs `python -m airflow_ha.restored` in a container of the stack's Airflow image.

`hold` comes after the service `migrate` and before every other Airflow component. The broker must be empty by then.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.restored import report_tables
from ops import compose, time_limits
from ops.child_process import no_answer
from ops.errors import FAILURE, StackError
from ops.screen import console

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from ops.project import Project

SCHEDULER: Final = "scheduler"
"""Has the plugins, whose timetables the stored DAGs may need, and the log-in of Celery's results."""
MIGRATE: Final = "migrate"
"""Has the log-in of Postgres' superuser."""
MOST_PROBLEMS: Final = 8
MONITORS: Final = ("canary_dag", "monitoring_dag")
"""The stack's own DAGs without side effects. Held, they would raise alerts about themselves."""


def hold(project: Project, keep: Collection[str] = MONITORS) -> dict[str, Any]:
    """Hold every unpaused DAG and settle unfinished tasks; return restored_at, held, settled and waiting.

    Raises:
        StackError: Another component of Airflow runs, or the schema is not that of the image; nothing was changed.
    """
    return run(project, SCHEDULER, "hold", *(f"--keep={dag}" for dag in keep))


def show(project: Project) -> dict[str, Any]:
    """Return restored_at, and the tasks that were settled or wait for the release."""
    return run(project, SCHEDULER, "show")


def missed(project: Project, since: datetime | None = None) -> dict[str, Any]:
    """Return the runs that were scheduled since the restored point, by DAG.

    Args:
        project: The stack.
        since: With a time zone; by default the restored point that `hold` found.
    """
    return run(project, SCHEDULER, "missed", *([f"--since={since.isoformat()}"] if since else []))


def release(project: Project, dags: Collection[str] = ()) -> dict[str, Any]:
    """Unpause held DAGs, all by default; return the DAGs released and those still held.

    Raises:
        StackError: A DAG is not held; none was released.
    """
    return run(project, SCHEDULER, "release", *(["--", *dags] if dags else ["--all"]))


def check(project: Project) -> dict[str, Any]:
    """Return the problems of a restored database (empty if there are none), and its rows by table."""
    return run(project, MIGRATE, "check")


def lost_rows(backed_up: Mapping[str, int], restored: Mapping[str, int]) -> list[str]:
    """Return a problem for each table that has fewer rows than at the backup.

    Args:
        backed_up: The rows that the backup recorded. A restore has what was written during the backup too.
        restored: `rows` of a check after the restore.
    """
    return [
        f"{table} has {restored.get(table, 0)} rows, it had {number} at the backup"
        for table, number in backed_up.items()
        if restored.get(table, 0) < number
    ]


def refuse_problems(project: Project, backed_up: Mapping[str, int]) -> None:
    """Check the restored database, before it may send its log to the repository.

    Args:
        project: The stack.
        backed_up: The rows that the backup recorded; empty to accept any number, as after a restore of a time.

    Raises:
        StackError: It has problems.
    """
    report = check(project)
    if found := [*report["problems"], *lost_rows(backed_up, report["rows"])]:
        raise StackError(
            f"the checks of the restored database found {len(found)} problems:\n" + "\n".join(found[:MOST_PROBLEMS]),
            hint="choose another backup with --backup ID (./ops/stack backup list shows the verified ones), or accept "
            "the problems with --accept-problems",
            code=FAILURE,
        )


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report of this module as tables."""
    for part in report_tables.tables(report):
        console.print(part, soft_wrap=isinstance(part, str))


def run(project: Project, service: str, command: str, *arguments: str) -> dict[str, Any]:
    """Run a command in a new container of a service, and return its report.

    Raises:
        StackError: The command failed, or has not ended in time.
    """
    what = f"run `airflow_ha.restored {command}`"
    # `migrate` loads the fewest patches, and no component's gauge.
    options = ("--env=AIRFLOW_HA_COMPONENT=migrate", "--env=AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR")
    module = "airflow_ha.restored"
    done = compose.run_module(project, service, module, command, "--json", *arguments, what=what, options=options)
    if done.returncode == time_limits.EXCEEDED:
        raise no_answer(what, time_limits.AIRFLOW)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise failure(command, done.stderr) from error
    return report


def failure(command: str, stderr: str) -> StackError:
    """Return the error of a command without a report: its own, or the last lines of its output."""
    lines = stderr.strip().splitlines() or ["no output"]
    what, _, hint = lines[-1].partition(". hint: ")
    if what.startswith("cannot "):
        return StackError(what, hint=hint)
    return StackError(
        f"cannot run `airflow_ha.restored {command}`:\n" + "\n".join(lines[-compose.ERROR_LINES :]),
        hint="check with ./ops/stack status that Postgres is healthy, then run this again",
        code=FAILURE,
    )
