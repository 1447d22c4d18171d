"""`drill`: inject a fault into the running stack under live load, and check the promises."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import psutil
import typer
from rich.table import Table

from airflow_ha.sizes import GIB
from ops import compose, settings_file
from ops.clients import slack_stub
from ops.compose import running_settings
from ops.drills import alert_drills, environments, faults, restore_results, results
from ops.drills import report as drill_report
from ops.drills.alert_drills import ALERT_DRILLS, AlertDrill, run_alert_drill
from ops.drills.catalogue import DRILLS, Drill
from ops.drills.restore_drills import RESTORE_DRILLS, RestoreDrill, prepare_restores, run_restore_drill
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import ask_to_confirm, console, escape, heading, report
from ops.storage_option import FromStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ops.drills.evaluate import Outcome
    from ops.project import Project

AnyDrill = TypeVar("AnyDrill", Drill, AlertDrill)


# More than six parameters: typer makes an option of each.
def drill(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="The drills to run; none lists them.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Run every drill that this stack and this machine support.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, max=50, help="Repetitions of each drill.")] = 1,
    alerts: Annotated[
        bool,
        typer.Option("--alerts", "--alarms", help="Check that only the right alert fires, and is resolved."),
    ] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="Use a stock Airflow, started for it, to compare what the fault costs.")
    ] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Write the results to ops/drills and README.md; with --alerts to alerting/detection.md."
        ),
    ] = False,
    storage: FromStorage = None,
    gib: Annotated[float, typer.Option(min=0.01, help="Size of the database that restore drills add.")] = 1.0,
    yes: Annotated[bool, typer.Option("--yes", help="No confirmation before a restore drill.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Inject faults into the running stack, and check that no task is lost and none runs twice.

    Example: ./ops/stack drill worker-crash --repeat 3

    Each drill starts a run of short and long tasks that write their events into a ledger outside Airflow, injects the
    fault, reverts it, and counts lost and repeated tasks. The stack is healthy again before the next drill. With
    --alerts no load runs: each fault lasts until its notification has arrived. Restore drills replace the database by
    what the backups have. Exit code 0 means that every promise was kept; a stock Airflow has no promises.
    """
    names = names or []
    if not names and not every:
        list_drills()
        return
    if alerts and stock:
        raise StackError("cannot use --alerts with --stock: a stock Airflow has no alerts", hint="omit one of the two")
    project = current_project()
    if restore_drills := [each for each in RESTORE_DRILLS if each.name in names]:
        if every or alerts or stock or len(restore_drills) < len(names):
            raise StackError(
                f"cannot combine {restore_drills[0].name} with other drills or options: it replaces the database",
                hint="run restore drills alone",
            )
        if not yes:
            console.print("This replaces the database of the running stack by what the backups have.")
            ask_to_confirm("Continue?")
        raise typer.Exit(
            0 if run_restore_drills(restore_drills, project, repeat, gib, storage, write=write) else FAILURE
        )
    with stack_lock(project, "drill", report):
        if stock:
            settings = settings_of_stopped_stack(project)
            comparable = {each.name: each for each in DRILLS if environments.exists_on_stock(each)}
            available = {target.required_service for each in comparable.values() for target in each.targets}
            chosen = choose(comparable, names, every=every, services=available)
            environment = environments.prepare_stock(project, settings, report)
            run_drills(chosen, environment, repeat=repeat, as_json=as_json, write=write, stock=True)
            return
        settings = running_settings(project, hint="run ./ops/stack up")
        available = set(compose.instances(settings["COMPOSE_PROJECT_NAME"]))
        if alerts:
            by_name = {each.name: each for each in ALERT_DRILLS}
            chosen_alert_drills = choose(by_name, names, every=every, services=available)
            all_kept = run_alert_drills(chosen_alert_drills, project, settings, write=write)
        else:
            chosen = choose({each.name: each for each in DRILLS}, names, every=every, services=available)
            environment = environments.prepare_stack(project, settings, report)
            all_kept = run_drills(chosen, environment, repeat=repeat, as_json=as_json, write=write)
    raise typer.Exit(0 if all_kept else FAILURE)


def settings_of_stopped_stack(project: Project) -> dict[str, str]:
    """Return the settings of a stack that was up and is down now.

    Raises:
        StackError: The stack runs: two on one machine would slow each other.
    """
    settings = settings_file.read(project)
    if compose.in_state(compose.instances(settings["COMPOSE_PROJECT_NAME"]), "running"):
        raise StackError(
            "cannot measure a stock Airflow: the stack runs and would use the same machine",
            hint="run ./ops/stack down, which keeps data",
        )
    return settings


def run_drills(
    drills: Sequence[Drill],
    environment: AbstractContextManager[Callable[[Drill], Outcome]],
    *,
    repeat: int,
    as_json: bool,
    write: bool,
    stock: bool = False,
) -> bool:
    """Run drills one after the other, print what they cost, and return whether all promises were kept."""
    outcomes: list[Outcome] = []
    try:
        with environment as run:
            for each in drills:
                for number in range(1, repeat + 1):
                    heading(f"{each.name}, {number} of {repeat}: {each.sentence}")
                    outcomes.append(run(each))
                    report_promises(outcomes[-1].broken)
    finally:
        # The results are printed and kept even if a later drill cannot be run.
        if as_json:
            typer.echo(json.dumps(drill_report.as_json(outcomes), indent=2))
        else:
            print_table(drill_report.HEADINGS, drill_report.rows(outcomes))
        if write:
            names = [outcome.drill for outcome in outcomes]
            complete = [outcome for outcome in outcomes if names.count(outcome.drill) == repeat]
            results.write(complete, machine(), datetime.now(UTC).date().isoformat(), stock=stock)
    return not any(outcome.broken for outcome in outcomes)


def machine() -> str:
    """Return the size of this machine, such as `2 cores and 24 GiB`."""
    return f"{os.cpu_count()} cores and {psutil.virtual_memory().total / GIB:.0f} GiB"


def run_alert_drills(
    drills: Sequence[AlertDrill], project: Project, settings: Mapping[str, str], *, write: bool
) -> bool:
    """Run alert drills one after the other, print their times, and return whether all promises were kept.

    Raises:
        StackError: Notifications go to a real Slack, where they cannot be read.
    """
    if not slack_stub.is_active(settings):
        raise StackError(
            "cannot read notifications: they go to a real Slack", where="--alerts", hint="run ./ops/stack slack --stub"
        )
    outcomes = []
    try:
        for each in drills:
            heading(each.name)
            outcomes.append(run_alert_drill(each, project, settings, report))
            report_promises(outcomes[-1].broken)
    finally:
        print_table(alert_drills.HEADINGS, alert_drills.rows(outcomes))
        if write:
            page = alert_drills.PAGE
            old = page.read_text(encoding="utf-8") if page.exists() else ""
            page.write_text(alert_drills.document(outcomes, old, machine()), encoding="utf-8")
    return not any(outcome.broken for outcome in outcomes)


def run_restore_drills(
    drills: Sequence[RestoreDrill], project: Project, repeat: int, gib: float, storage: str | None, *, write: bool
) -> bool:
    """Run restore drills one after the other, print what they lost, and return whether all promises were kept."""
    settings = running_settings(project, hint="run ./ops/stack up")
    outcomes = []
    try:
        with prepare_restores(project, settings, gib, report, storage) as stack:
            for each in drills:
                for number in range(1, repeat + 1):
                    heading(f"{each.name}, {number} of {repeat}: {each.sentence}")
                    outcomes.append(run_restore_drill(each, stack))
                    report_promises(outcomes[-1].broken)
    finally:
        print_table(restore_results.HEADINGS, restore_results.rows(outcomes))
        if write:
            names = [outcome.drill for outcome in outcomes]
            complete = [outcome for outcome in outcomes if names.count(outcome.drill) == repeat]
            restore_results.write(complete, machine(), datetime.now(UTC).date().isoformat())
    return not any(outcome.broken for outcome in outcomes)


def report_promises(broken: Sequence[str]) -> None:
    """Print the broken promises of one drill, or that all were kept."""
    report("; ".join(broken) or "all promises kept")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def list_drills() -> None:
    print_table(
        ("drill", "fault", "recovery within"),
        [(each.name, f"{each.sentence}: {faults.MEANING[each.fault]}", f"{each.deadline:.0f} s") for each in DRILLS],
    )
    print_table(("restore drill", "fault"), [(each.name, each.sentence) for each in RESTORE_DRILLS])
    print_table(
        ("--alerts", "expected alerts"),
        [(each.name, ", ".join(alert.display_name for alert in each.expected)) for each in ALERT_DRILLS],
    )


def choose(
    catalogue: Mapping[str, AnyDrill], names: Sequence[str], *, every: bool, services: set[str]
) -> list[AnyDrill]:
    """Return the named drills, or with `every` all that this stack and this machine support.

    Args:
        catalogue: The drills by name.
        names: The names on the command line.
        every: Whether all supported drills are chosen too; the others are reported.
        services: The compose services of the stack.

    Raises:
        StackError: A named drill does not exist, or this stack or this machine does not support it.
    """
    for name in names:
        if name not in catalogue:
            raise StackError(f"cannot run {name}: there is no such drill", hint=f"choose one of {', '.join(catalogue)}")
        if missing := sorted({target.required_service for target in catalogue[name].targets} - services):
            raise StackError(
                f"cannot run {name}: this stack has no {', '.join(missing)}", hint="run ./ops/stack status"
            )
    chosen = []
    for name, each in catalogue.items():
        if name in names:
            faults.require_support(each.fault)
            chosen.append(each)
        elif every and {target.required_service for target in each.targets} <= services:
            try:
                faults.require_support(each.fault)
                chosen.append(each)
            except StackError as error:
                report(f"{name} is skipped: {error.what}")
    return chosen
