"""`drill`: a fault strikes this very stack under a live load, and the promises are checked."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import psutil
import typer
from rich.table import Table

from ops import compose, settings_file
from ops.clients import slack_stub
from ops.compose import running_settings
from ops.drills import alert_drills, environments, faults, results
from ops.drills import report as drill_report
from ops.drills.alert_drills import ALARMS, Alarm, raise_alarm
from ops.drills.catalogue import DRILLS, Drill
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import console, escape, heading, report

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ops.drills.runner import Outcome
    from ops.project import Project

Struck = TypeVar("Struck", Drill, Alarm)


def drill(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that this stack and this machine allow.")] = False,
    repeat: Annotated[int, typer.Option(min=1, max=50, help="How often each is held.")] = 1,
    messages: Annotated[bool, typer.Option("--alarms", help="See that the right alert comes, and ends.")] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="On a stock Airflow instead, brought up for it: what the same fault costs.")
    ] = False,
    write: Annotated[
        bool,
        typer.Option("--write", help="Put the result into README.md; with --alarms into alerting/detection.md."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Strike the running stack with faults, and see that no task is lost and none runs twice.

    Each drill starts a run of short and long tasks that write what they do into a ledger outside Airflow, kills,
    freezes or cuts off what it says, and counts. The stack is whole again before the next. With --alarms, what people
    are told is looked at instead: each fault lasts until its message has come. Exits with 0 when every promise was
    kept; a stock Airflow has made none.
    """
    if not names and not every:
        list_drills()
        return
    if messages and stock:
        raise StackError("a stock Airflow tells nobody anything", hint="leave out --alarms or --stock")
    project = current_project()
    with stack_lock(project, "drill", report):
        if stock:
            settings = settings_beside_nothing(project)
            comparable = {one.name: one for one in DRILLS if environments.has_stock(one)}
            there = {victim.needs for one in comparable.values() for victim in one.victims}
            chosen = choose(comparable, names or [], every=every, services=there)
            hold_drills(
                chosen,
                environments.on_stock(project, settings, report),
                repeat=repeat,
                as_json=as_json,
                write=write,
                stock=True,
            )
            return
        settings = running_settings(project, hint="./ops/stack up")
        there = set(compose.instances(settings["COMPOSE_PROJECT_NAME"]))
        if messages:
            alarms_chosen = choose({one.name: one for one in ALARMS}, names or [], every=every, services=there)
            broken = hold_alarms(alarms_chosen, project, settings, write=write)
        else:
            chosen = choose({one.name: one for one in DRILLS}, names or [], every=every, services=there)
            on_stack = environments.on_stack(project, settings, report)
            broken = hold_drills(chosen, on_stack, repeat=repeat, as_json=as_json, write=write)
    raise typer.Exit(FAILURE if broken else 0)


def settings_beside_nothing(project: Project) -> dict[str, str]:
    """The settings of a stack that has been up, and is not: two on one machine would slow each other.

    Raises:
        StackError: It runs.
    """
    settings = settings_file.read(project)
    if compose.in_state(compose.instances(settings["COMPOSE_PROJECT_NAME"]), "running"):
        raise StackError(
            "the stack runs, and would take part of the machine", hint="./ops/stack down, which keeps data"
        )
    return settings


def hold_drills(
    drills: list[Drill],
    place: AbstractContextManager[Callable[[Drill], Outcome]],
    *,
    repeat: int,
    as_json: bool,
    write: bool,
    stock: bool = False,
) -> bool:
    """Holds drills one after the other and shows what they cost; returns whether any promise was broken."""
    outcomes: list[Outcome] = []
    try:
        with place as strike:
            for one in drills:
                for number in range(1, repeat + 1):
                    heading(f"{one.name}, {number} of {repeat}: {one.sentence}")
                    outcomes.append(strike(one))
                    report("kept" if not outcomes[-1].broken else "; ".join(outcomes[-1].broken))
    finally:
        # What was held counts, also when the next could not be.
        if as_json:
            typer.echo(json.dumps(drill_report.as_json(outcomes), indent=2))
        else:
            show(drill_report.HEADINGS, drill_report.rows(outcomes))
        if write:
            whole = [one for one in outcomes if sum(other.drill == one.drill for other in outcomes) == repeat]
            results.write(whole, machine(), datetime.now(UTC).date().isoformat(), stock=stock)
    return any(outcome.broken for outcome in outcomes)


def machine() -> str:
    """What is measured on, for people."""
    return f"{os.cpu_count()} cores and {psutil.virtual_memory().total / 1024**3:.0f} GiB"


def hold_alarms(chosen: list[Alarm], project: Project, settings: dict[str, str], *, write: bool) -> bool:
    """Raises alarms one after the other and shows when people heard; returns whether any promise was broken.

    Raises:
        StackError: Nobody can be listened to: messages go to a real Slack.
    """
    if not slack_stub.is_there(settings):
        raise StackError("messages go to a real Slack, where they cannot be seen", hint="./ops/stack slack --stub")
    heard = []
    try:
        for one in chosen:
            heading(one.name)
            heard.append(raise_alarm(one, project, settings, report))
            report("kept" if not heard[-1].broken else "; ".join(heard[-1].broken))
    finally:
        show(alert_drills.HEADINGS, alert_drills.rows(heard))
        if write:
            old = alert_drills.PAGE.read_text(encoding="utf-8") if alert_drills.PAGE.exists() else ""
            alert_drills.PAGE.write_text(alert_drills.document(heard, old, machine()), encoding="utf-8")
    return any(one.broken for one in heard)


def show(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """The result as a table."""
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def list_drills() -> None:
    """What there is to choose from."""
    table = Table("drill", "what happens", "recovery within")
    for one in DRILLS:
        table.add_row(one.name, f"{one.sentence}: {faults.MEANING[one.fault]}", f"{one.deadline:.0f} s")
    console.print(table)
    table = Table("--alarms", "what people are told")
    for alarm in ALARMS:
        table.add_row(alarm.name, ", ".join(expected.name for expected in alarm.expected))
    console.print(table)


def choose(catalogue: dict[str, Struck], names: list[str], *, every: bool, services: set[str]) -> list[Struck]:
    """Those that were asked for.

    Raises:
        StackError: One does not exist, strikes what this stack does not have, or cannot be made on this machine.
    """
    for name in names:
        if name not in catalogue:
            raise StackError(f"there is no drill {name!r}", hint=f"these are: {', '.join(catalogue)}")
        if missing := sorted({victim.needs for victim in catalogue[name].victims} - services):
            raise StackError(
                f"{name} strikes {', '.join(missing)}, which this stack does not have", hint="./ops/stack status"
            )
    chosen = []
    for name, one in catalogue.items():
        if name in names:
            faults.check(one.fault)
            chosen.append(one)
        elif every and {victim.needs for victim in one.victims} <= services:
            try:
                faults.check(one.fault)
                chosen.append(one)
            except StackError as error:
                report(f"{name} left out: {error.what}")
    return chosen
