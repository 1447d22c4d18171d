"""The messages that the Slack stub (compose/slack-stub/slack_stub.py) received, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from ops.errors import FAILURE, StackError
from ops.services import local_url, page_urls

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 5.0
"""For one answer."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        received: Seconds since the epoch.
        firing: Whether it tells that something is wrong; else that it is over.
        alert: The alert's name; empty for a message that is not Alertmanager's.
        labels: Those that the message's alerts have in common, beside name, severity and team.
        title: In a line.
        text: All of it.
    """

    received: float
    firing: bool
    alert: str
    labels: dict[str, str]
    title: str
    text: str


def is_there(settings: Mapping[str, str]) -> bool:
    """Whether messages go to the stack's own Slack."""
    return "slack_stub" in page_urls(settings)


def messages(settings: Mapping[str, str]) -> list[Message]:
    """All that it has, oldest first.

    Raises:
        StackError: It does not answer, or there is none: messages go to a real Slack.
    """
    url = f"{local_url(settings, 'slack_stub')}/messages"
    try:
        answer = httpx.get(url, timeout=SECONDS).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise StackError(
            f"the stack's own Slack does not answer: {error}", where=url, hint="./ops/stack status", code=FAILURE
        ) from error
    return [message_of(entry["received"], entry["payload"]) for entry in answer]


def message_of(received: float, payload: Mapping[str, Any]) -> Message:
    """A message out of what was posted."""
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
