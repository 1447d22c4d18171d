"""Client of the Slack stub (compose/slack-stub/slack_stub.py): the messages that it received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from ops.clients import transport
from ops.services import local_url, page_urls

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 5.0
"""Timeout of one response."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        received: Unix seconds.
        firing: Whether alerts of the group fire; otherwise all are resolved.
        alert: The alert's name; empty for a message that Alertmanager did not send.
        labels: The common labels of the message's alerts, without alertname, severity, team and depends_on.
        title: One line.
        text: The whole body.
    """

    received: float
    firing: bool
    alert: str
    labels: dict[str, str]
    title: str
    text: str


def is_active(settings: Mapping[str, str]) -> bool:
    """Whether messages go to the Slack stub."""
    return "slack_stub" in page_urls(settings)


def messages(settings: Mapping[str, str]) -> list[Message]:
    """Return all its messages, oldest first.

    Raises:
        StackError: It does not answer, or refuses the log-in. With a real Slack there is no stub.
    """
    url = f"{local_url(settings, 'slack_stub')}/messages"
    try:
        answer = httpx.get(url, timeout=SECONDS, auth=transport.page_log_in(settings))
        transport.require_log_in(answer, "the Slack stub")
        entries = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        hint = "check with ./ops/stack status whether slack-stub is healthy"
        raise transport.unreachable("the Slack stub", error, where=url, hint=hint) from error
    return [message_of(entry["received"], entry["payload"]) for entry in entries]


def message_of(received: float, payload: Mapping[str, Any]) -> Message:
    """Return the message of a posted payload."""
    attachment = (payload.get("attachments") or [{}])[0]
    fields = {field["title"]: field.get("value", "") for field in attachment.get("fields", [])}
    title = str(attachment.get("title") or payload.get("text") or "(no title)")
    pairs = (pair.partition("=") for pair in fields.get("Labels", "").split())
    return Message(
        received=float(received),
        firing=title.startswith("[FIRING]"),
        alert=fields.get("Alert", ""),
        labels={name: value for name, equals, value in pairs if equals},
        title=title,
        text=str(attachment.get("text") or payload.get("text") or ""),
    )
