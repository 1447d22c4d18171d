"""`alerts`: what fires, what is muted and why, and what was sent."""

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
"""How many of the messages sent last."""
OWN = ("alertname", "severity", "team", "depends_on")


class Found(TypedDict):
    """All that the command shows.

    `muting` are alerts that nobody is told of: the Watchdog, and those that are there to mute others. `sent` is None
    where messages go to a real Slack, or the stack's own does not answer.
    """

    firing: list[Alert]
    silenced: list[Alert]
    inhibited: list[Alert]
    muting: list[Alert]
    silences: list[Silence]
    sent: list[slack_stub.Message] | None


def alerts(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show the alerts that fire, those that are silenced or inhibited, and the messages sent last."""
    settings = running_settings(current_project())
    one = alertmanager.any_that_answers(alertmanager.both(settings))
    found = sorted_out(one.alerts(), one.silences(), sent(settings))
    if as_json:
        told = found["sent"]
        messages = None if told is None else [asdict(message) for message in told]
        typer.echo(json.dumps({**found, "sent": messages}, indent=2))
    else:
        show(found)


def sorted_out(all_alerts: list[Alert], silences: list[Silence], messages: list[slack_stub.Message] | None) -> Found:
    """The alerts by what becomes of them."""
    told = [alert for alert in all_alerts if alert["labels"].get("severity") != "none"]
    by_state = {state: [alert for alert in told if alert["state"] == state] for state in ("firing", "silenced")}
    return Found(
        firing=by_state["firing"],
        silenced=by_state["silenced"],
        inhibited=[alert for alert in told if alert["state"] == "inhibited"],
        muting=[alert for alert in all_alerts if alert["labels"].get("severity") == "none"],
        silences=silences,
        sent=messages,
    )


def sent(settings: Mapping[str, str]) -> list[slack_stub.Message] | None:
    """The newest messages that the stack's own Slack has, newest first."""
    if not slack_stub.is_there(settings):
        return None
    try:
        return slack_stub.messages(settings)[: -SHOWN - 1 : -1]
    except StackError:
        return None


def show(found: Found) -> None:
    """The same as tables."""
    rows = [*found["firing"], *found["silenced"], *found["inhibited"]]
    if rows:
        table = Table("alert", "severity", "labels", "state", "since (UTC)", "what")
        for alert in rows:
            labels = alert["labels"]
            others = " ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name not in OWN)
            name, severity = labels.get("alertname", ""), labels.get("severity", "")
            what = alert["annotations"].get("summary", "")
            table.add_row(*map(escape, (name, severity, others, alert["state"], clock(alert["since"]), what)))
        console.print(table)
    else:
        console.print("No alert: nothing is wrong.")
    for silence in found["silences"]:
        which = " ".join(f"{name}={value}" for name, value in silence["matchers"].items())
        told = f"silence {silence['id']}: {which} until {clock(silence['until'])} UTC"
        console.print(escape(f"{told}, {silence['by']}: {silence['why']}"), soft_wrap=True)
    if found["sent"]:
        table = Table("sent (UTC)", "message", title=f"the last {len(found['sent'])} messages")
        for message in found["sent"]:
            at = datetime.fromtimestamp(message.received, tz=UTC).strftime("%H:%M:%S")
            table.add_row(at, escape(message.title))
        console.print(table)


def clock(text: str) -> str:
    """A time as Alertmanager writes it, shorter."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
