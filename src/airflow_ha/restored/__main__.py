"""`python -m airflow_ha.restored COMMAND`, in the Airflow image with the log-in of the metadata database.

    hold [--keep DAG_ID]...          hold every unpaused DAG and settle unfinished tasks, before any scheduler starts
    show                             the held DAGs, what was settled, and what waits for the release
    missed [--since TIME]            the runs that were scheduled since the restored point
    release (DAG_ID... | --all)      unpause held DAGs; --all also ends the hold
    check                            verify a restored database: schema, pages, indexes, rows, encrypted values

Each prints tables, or with `--json` one line of JSON. `check` exits with 1 if it finds a problem.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from airflow_ha.restored import hold, missed_runs, report_tables, unfinished, verification
from airflow_ha.secret_masking import SECRETS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SUPERUSER: Final = SECRETS / "postgres_superuser_conn"


def main() -> None:
    """Run the command."""
    arguments = parser().parse_args()
    if arguments.command == "release" and bool(arguments.dags) == arguments.all:
        sys.exit("cannot release: expected DAG ids or --all. hint: name the DAGs, or add --all")
    with contextlib.redirect_stdout(sys.stderr):  # Airflow logs to standard output
        report = run(arguments)
    if arguments.json:
        print(json.dumps(report, default=datetime.isoformat))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
        for part in report_tables.tables(report):
            console.print(part, soft_wrap=isinstance(part, str))
    sys.exit(bool(report.get("problems")))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true")
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser("hold", parents=[common]).add_argument("--keep", action="append", default=[])
    commands.add_parser("show", parents=[common])
    commands.add_parser("missed", parents=[common]).add_argument("--since", type=point_in_time)
    release = commands.add_parser("release", parents=[common])
    release.add_argument("dags", nargs="*")
    release.add_argument("--all", action="store_true")
    commands.add_parser("check", parents=[common])
    return whole


def point_in_time(text: str) -> datetime:
    """Return the time that an argument names; it must have a time zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"cannot read the time {text}: no time zone. hint: add +00:00 for UTC")
    return time


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a command and return its report."""
    from airflow.utils.session import create_session

    with create_session() as session:
        match arguments.command:
            case "hold":
                return hold_all(session, arguments.keep)
            case "show":
                return show(session)
            case "missed":
                return missed(session, arguments.since)
            case "release":
                return hold.release(session, arguments.dags)
            case _:
                superuser = SUPERUSER.read_text().strip() if SUPERUSER.exists() else ""
                return verification.check(session, superuser)


def hold_all(session: Session, kept: list[str]) -> dict[str, Any]:
    """Hold the DAGs, then settle what is unfinished. Each step is committed, and a second call continues."""
    from airflow.configuration import conf

    if problems := verification.migration_problems():
        sys.exit(f"cannot hold the DAGs: {problems[0]}. hint: run the service migrate first")
    hold.refuse_other_clients(session)
    restored_at = hold.hold_dags(session, kept)
    session.commit()
    unfinished.delete_results(conf.get("celery", "result_backend"), unfinished.settle_tasks(session))
    ended = {"ended_callbacks": unfinished.end_callbacks(session), "ended_sessions": unfinished.end_sessions(session)}
    return {**show(session, restored_at), **ended}


def show(session: Session, restored_at: datetime | None = None) -> dict[str, Any]:
    """Return the state of the hold.

    Args:
        session: Of the metadata database.
        restored_at: The restored point, where no DAG may be held that has it.
    """
    held = hold.held_dags(session)
    restored_at = min(held.values(), default=restored_at)
    return {
        "restored_at": restored_at,
        "held": list(held),
        "settled": unfinished.settled_tasks(session, restored_at) if restored_at else [],
        "waiting": unfinished.waiting_tasks(session, held),
    }


def missed(session: Session, since: datetime | None) -> dict[str, Any]:
    """Return the missed runs of held and of unpaused DAGs."""
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    held = hold.held_dags(session)
    since = since or min(held.values(), default=None)
    if since is None:
        sys.exit("cannot list missed runs: no DAG is held. hint: name the restored time with --since")
    unpaused = session.scalars(select(DagModel.dag_id).where(~DagModel.is_paused, ~DagModel.is_stale))
    return {"since": since, "dags": missed_runs.missed_runs(session, {*held, *unpaused}, since)}


if __name__ == "__main__":
    main()
