"""`alerts`: list alerts by state, silences, and the newest messages."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer
from rich.table import Table

from ops.clients import alertmanager, slack_stub
from ops.compose import running_settings
from ops.errors import StackError
from ops.project import current_project
from ops.screen import console, escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.clients.alertmanager import Alert, Silence

SHOWN = 10
"""Number of messages."""
OWN = ("alertname", "severity", "team", "depends_on")


class Report(TypedDict):
    """The command's output.

    `muting` has the alerts without a message: the Watchdog, and sources of inhibition only. `sent` is None with a real
    Slack, or if the Slack stub does not answer.
    """

    firing: list[Alert]
    silenced: list[Alert]
    inhibited: list[Alert]
    muting: list[Alert]
    silences: list[Silence]
    sent: list[slack_stub.Message] | None


def alerts(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show firing, silenced and inhibited alerts, and the newest messages.

    Example: ./ops/stack alerts --json
    """
    settings = running_settings(current_project())
    api = alertmanager.any_that_answers(alertmanager.both(settings))
    report = by_state(api.alerts(), api.silences(), newest_messages(settings))
    if as_json:
        sent = report["sent"]
        messages = None if sent is None else [asdict(message) for message in sent]
        typer.echo(json.dumps({**report, "sent": messages}, indent=2))
    else:
        show(report)


def by_state(all_alerts: list[Alert], silences: list[Silence], messages: list[slack_stub.Message] | None) -> Report:
    """Group the alerts by their state."""
    with_message = [alert for alert in all_alerts if alert["labels"].get("severity") != "none"]

    def in_state(state: str) -> list[Alert]:
        return [alert for alert in with_message if alert["state"] == state]

    return Report(
        firing=in_state("firing"),
        silenced=in_state("silenced"),
        inhibited=in_state("inhibited"),
        muting=[alert for alert in all_alerts if alert["labels"].get("severity") == "none"],
        silences=silences,
        sent=messages,
    )


def newest_messages(settings: Mapping[str, str]) -> list[slack_stub.Message] | None:
    """Return the messages of the Slack stub, newest first."""
    if not slack_stub.is_active(settings):
        return None
    try:
        return slack_stub.messages(settings)[: -SHOWN - 1 : -1]
    except StackError:
        return None


def show(report: Report) -> None:
    """Print the report as tables."""
    rows = [*report["firing"], *report["silenced"], *report["inhibited"]]
    if rows:
        table = Table("alert", "severity", "labels", "state", "since (UTC)", "summary")
        for alert in rows:
            labels = alert["labels"]
            others = " ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name not in OWN)
            name, severity = labels.get("alertname", ""), labels.get("severity", "")
            summary = alert["annotations"].get("summary", "")
            state, sources = alert["state"], ", ".join(alert["inhibited_by"])
            if state == "inhibited" and sources:
                state = f"inhibited by {sources}"
            table.add_row(*map(escape, (name, severity, others, state, clock(alert["since"]), summary)))
        console.print(table)
    else:
        console.print("No alert fires.")
    for silence in report["silences"]:
        matchers = " ".join(f"{name}={value}" for name, value in silence["matchers"].items())
        line = f"silence {silence['id']}: {matchers} until {clock(silence['until'])} UTC"
        console.print(escape(f"{line}, {silence['by']}: {silence['why']}"), soft_wrap=True)
    if report["sent"]:
        table = Table("sent (UTC)", "message", title=f"the newest {len(report['sent'])} messages")
        for message in report["sent"]:
            at = datetime.fromtimestamp(message.received, tz=UTC).strftime("%H:%M:%S")
            table.add_row(at, escape(message.title))
        console.print(table)


def clock(text: str) -> str:
    """Return Alertmanager's time to the second, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
