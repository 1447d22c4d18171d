"""`silence`: say nothing of an alert for a while, and why."""

from __future__ import annotations

import getpass
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from ops.clients import alertmanager
from ops.compose import running_settings
from ops.errors import StackError
from ops.project import current_project
from ops.screen import report

if TYPE_CHECKING:
    from pathlib import Path

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=30)
"""A silence is not a way to be rid of an alert for ever."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_duration(text: str) -> timedelta:
    """`30m`, `2h`, `1d` or `1h30m`.

    Raises:
        StackError: It is not of that form, or out of range.
    """
    parts = re.findall(r"([0-9]{1,6})([mhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise StackError(f"{text!r} is not a duration", where="--for", hint="for instance: 30m, 2h, 1d or 1h30m")
    total = sum((timedelta(**{UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    if not timedelta() < total <= LONGEST:
        raise StackError(f"{text} is no time to be silent", where="--for", hint=f"take 1m to {LONGEST.days}d")
    return total


def parse_label(text: str) -> tuple[str, str]:
    """`component=worker` as its name and value.

    Raises:
        StackError: It is not of that form.
    """
    name, equals, value = text.partition("=")
    if not equals or not value or not LABEL.fullmatch(name) or name == "alertname":
        raise StackError(f"{text!r} is not a label", where="--label", hint="for instance: component=worker")
    return name, value


def known_alerts(root: Path) -> list[str]:
    """The alerts that there can be: those of the rules, and those that have only a runbook, from the monitoring DAG."""
    rules = [
        rule["alert"]
        for path in sorted((root / "alerting/rules").glob("*.yaml"))
        for group in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("groups", [])
        for rule in group["rules"]
        if "alert" in rule
    ]
    runbooks = [path.stem for path in (root / "alerting/runbooks").glob("*.md") if path.stem != "README"]
    return sorted({*rules, *runbooks})


def silence(
    alert: Annotated[str | None, typer.Argument(help="The alert's name.", show_default=False)] = None,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 30m, 2h, 1d.")] = "2h",
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why: who comes after you wants to know.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only with this label too; several times.", show_default=False),
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="ID", help="End this silence now.", show_default=False)] = None,
) -> None:
    """Say nothing of an alert for a while; or end that, with --end.

    The alert goes on to fire, and `./ops/stack alerts` shows it as silenced. Both Alertmanagers know of it.
    """
    project = current_project()
    if end is not None:
        if alert or why or label:
            raise StackError("--end takes an id and nothing else", hint="./ops/stack alerts shows the ids")
        if not UUID.fullmatch(end):
            raise StackError(f"{end!r} is not the id of a silence", hint="./ops/stack alerts shows the ids")
        one = alertmanager.any_that_answers(alertmanager.both(running_settings(project)))
        if end not in {found["id"] for found in one.silences()}:
            raise StackError(f"there is no silence {end}, or it has ended", hint="./ops/stack alerts shows the ids")
        one.end_silence(end)
        report(f"silence {end} has ended")
        return
    known = known_alerts(project.root)
    if not alert:
        raise StackError("an alert's name is missing", hint=f"the alerts are: {', '.join(known)}")
    if alert not in known:
        raise StackError(f"there is no alert {alert!r}", hint=f"the alerts are: {', '.join(known)}")
    if not why.strip():
        raise StackError("a silence has a reason", hint=f"./ops/stack silence {alert} --for {duration} --why TEXT")
    length = parse_duration(duration)
    matchers = {"alertname": alert, **dict(map(parse_label, label or []))}
    one = alertmanager.any_that_answers(alertmanager.both(running_settings(project)))
    start = datetime.now(tz=UTC)
    made = one.silence(matchers, start, start + length, getpass.getuser(), why.strip())
    until = (start + length).strftime("%Y-%m-%d %H:%M:%S")
    report(f"silence {made}: {' '.join(f'{n}={v}' for n, v in matchers.items())} until {until} UTC")
    report(f"to end it sooner: ./ops/stack silence --end {made}")
