"""`silence`: silence an alert, or expire a silence."""

from __future__ import annotations

import getpass
import re
import shlex
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

    from ops.project import Project

IDS_HINT = "run ./ops/stack alerts for the ids"
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=30)
"""The longest silence: no alert is silenced without end."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_duration(text: str) -> timedelta:
    """Parse `30m`, `2h`, `1d` or `1h30m`.

    Raises:
        StackError: It has another form, or is out of range.
    """
    parts = re.findall(r"([0-9]{1,6})([mhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        hint = "use, for example, 30m, 2h, 1d or 1h30m"
        raise StackError(f"cannot silence for {text!r}: it is not a duration", where="--for", hint=hint)
    total = sum((timedelta(**{UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    if not timedelta() < total <= LONGEST:
        hint = f"use 1m to {LONGEST.days}d"
        raise StackError(f"cannot silence for {text}: the duration is out of range", where="--for", hint=hint)
    return total


def parse_label(text: str) -> tuple[str, str]:
    """Parse `component=worker` into name and value.

    Raises:
        StackError: It has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not value or not LABEL.fullmatch(name) or name == "alertname":
        hint = "use, for example, component=worker"
        raise StackError(f"cannot silence alerts with {text!r}: it is not a label", where="--label", hint=hint)
    return name, value


def known_alerts(root: Path) -> list[str]:
    """Return all alert names: those of the rules, and those with only a runbook, from the monitoring DAG."""
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
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="Duration: 30m, 2h, 1d.")] = "2h",
    why: Annotated[str, typer.Option(metavar="TEXT", help="Reason, for the next on-call engineer.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only alerts with this label; repeatable.", show_default=False),
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="ID", help="Expire this silence now.", show_default=False)] = None,
) -> None:
    """Silence an alert, or expire a silence with --end.

    The alert still fires, and `./ops/stack alerts` shows it as silenced. The silence applies at both Alertmanagers.

    Example: ./ops/stack silence AirflowWorkersFull --for 2h --why "nightly load"
    """
    project = current_project()
    if end is not None:
        if alert or why or label:
            raise StackError("cannot combine --end with other arguments: it takes only an id", hint=IDS_HINT)
        expire(project, end)
    else:
        create(project, alert, duration, why.strip(), label or [])


def expire(project: Project, identity: str) -> None:
    """Expire a silence.

    Raises:
        StackError: It does not exist, or has expired.
    """
    if not UUID.fullmatch(identity):
        raise StackError(f"cannot expire {identity!r}: it is not the id of a silence", hint=IDS_HINT)
    api = alertmanager.any_that_answers(alertmanager.both(running_settings(project)))
    if identity not in {silence["id"] for silence in api.silences()}:
        raise StackError(f"cannot find the silence {identity}", hint=IDS_HINT)
    api.end_silence(identity)
    report(f"silence {identity} has expired")


def create(project: Project, alert: str | None, duration: str, why: str, labels: list[str]) -> None:
    """Create a silence.

    Raises:
        StackError: An argument is missing or malformed.
    """
    known = known_alerts(project.root)
    names_hint = f"use one of: {', '.join(known)}"
    if not alert:
        raise StackError("cannot create a silence: the alert's name is missing", hint=names_hint)
    if alert not in known:
        raise StackError(f"cannot find the alert {alert!r}", hint=names_hint)
    length = parse_duration(duration)
    if not why:
        given = ["silence", alert, *(part for label in labels for part in ("--label", label)), "--for", duration]
        hint = f"run ./ops/stack {shlex.join(given)} --why TEXT"
        raise StackError("cannot create a silence: the reason is missing", hint=hint)
    matchers = {"alertname": alert, **dict(map(parse_label, labels))}
    api = alertmanager.any_that_answers(alertmanager.both(running_settings(project)))
    matches_now = any(matchers.items() <= each["labels"].items() for each in api.alerts())
    start = datetime.now(tz=UTC)
    identity = api.silence(matchers, start, start + length, getpass.getuser(), why)
    until = (start + length).strftime("%Y-%m-%d %H:%M:%S")
    report(f"silence {identity}: {' '.join(f'{n}={v}' for n, v in matchers.items())} until {until} UTC")
    if not matches_now:
        report("no alert has these labels now: the silence applies to alerts that begin before its end")
    report(f"to expire it sooner: ./ops/stack silence --end {identity}")
