"""The optional secrets of notifications: what each may contain, and what is mounted without it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

SLACK: Final = "slack_webhook_url"
SLACK_DATA: Final = "slack_webhook_url_data"
PAGERDUTY: Final = "pagerduty_routing_key"
SMTP: Final = "smtp_password"
DEAD_MANS_SWITCH: Final = "dead_mans_switch_url"
STUB_SLACK_URL: Final = "http://slack-stub:8025/services/stub/platform/alerts"
STUB_SWITCH_URL: Final = "http://slack-stub:8025/watchdog"


def slack_webhook(text: str) -> str:
    """What a Slack webhook's address must look like; empty when `text` does.

    Slack's own: https://api.slack.com/messaging/webhooks. Another server that takes Slack's messages is fine too.
    """
    problem = https_url(text)
    if problem:
        return problem
    url = urlsplit(text)
    if url.hostname == "hooks.slack.com" and not re.fullmatch(r"/services/T\w+/B\w+/\w+", url.path):
        return "https://hooks.slack.com/services/T…/B…/…, whole, as Slack shows it"
    return ""


def https_url(text: str) -> str:
    """What an address must look like; empty when `text` does."""
    try:
        url = urlsplit(text)
        valid = url.scheme == "https" and bool(url.hostname) and url.port != 0 and not re.search(r"[\s<>\"]", text)
    except ValueError:
        valid = False
    return "" if valid else "an address that begins with https://"


def routing_key(text: str) -> str:
    """What PagerDuty's key must look like; empty when `text` does."""
    return "" if re.fullmatch(r"[A-Za-z0-9]{32}", text) else "the 32 letters and digits of an Events API v2 integration"


def mounted_secrets(value: Mapping[str, str]) -> dict[str, str]:
    """The text of each secret file of Alertmanager: the operator's, or what takes its place.

    Args:
        value: The optional secrets that exist.
    """
    slack = value.get(SLACK, STUB_SLACK_URL)
    return {
        SLACK: slack,
        SLACK_DATA: value.get(SLACK_DATA, slack),
        # Not read unless they are set; a mounted file has to be there.
        PAGERDUTY: value.get(PAGERDUTY, ""),
        SMTP: value.get(SMTP, ""),
        DEAD_MANS_SWITCH: value.get(DEAD_MANS_SWITCH, STUB_SWITCH_URL),
    }


def stub_is_wanted(secrets: Collection[str]) -> bool:
    """Whether messages go to the stack's own Slack."""
    return SLACK not in secrets


OPTIONAL_SECRETS: Final[dict[str, Callable[[str], str]]] = {
    SLACK: slack_webhook,
    SLACK_DATA: slack_webhook,
    PAGERDUTY: routing_key,
    SMTP: lambda _: "",
    DEAD_MANS_SWITCH: https_url,
}
"""The operator's secrets that switch a way out on, and what each says of a value that is not of its kind."""
