"""The optional secrets of notifications: their form, and what is mounted without them."""

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
    """Return the form that a Slack webhook must have; empty if `text` has it.

    Slack's own: https://api.slack.com/messaging/webhooks. Another server that accepts Slack's messages is valid too.
    """
    problem = https_url(text)
    if problem:
        return problem
    url = urlsplit(text)
    if url.hostname == "hooks.slack.com" and not re.fullmatch(r"/services/T\w+/B\w+/\w+", url.path):
        return "https://hooks.slack.com/services/T…/B…/…, whole, as Slack shows it"
    return ""


def https_url(text: str) -> str:
    """Return the form that a URL must have; empty if `text` has it."""
    try:
        url = urlsplit(text)
        is_valid = url.scheme == "https" and bool(url.hostname) and url.port != 0 and not re.search(r"[\s<>\"]", text)
    except ValueError:
        is_valid = False
    return "" if is_valid else "an address that begins with https://"


def routing_key(text: str) -> str:
    """Return the form that PagerDuty's key must have; empty if `text` has it."""
    return "" if re.fullmatch(r"[A-Za-z0-9]{32}", text) else "the 32 letters and digits of an Events API v2 integration"


def mounted_secrets(value: Mapping[str, str]) -> dict[str, str]:
    """Return the content of each secret file of Alertmanager: the operator's secret, or its default.

    Args:
        value: The optional secrets that exist.
    """
    slack = value.get(SLACK, STUB_SLACK_URL)
    return {
        SLACK: slack,
        SLACK_DATA: value.get(SLACK_DATA, slack),
        # Alertmanager reads these only if they are set, but a mounted file must exist.
        PAGERDUTY: value.get(PAGERDUTY, ""),
        SMTP: value.get(SMTP, ""),
        DEAD_MANS_SWITCH: value.get(DEAD_MANS_SWITCH, STUB_SWITCH_URL),
    }


def stub_is_wanted(secrets: Collection[str]) -> bool:
    """Whether messages go to the Slack stub."""
    return SLACK not in secrets


OPTIONAL_SECRETS: Final[dict[str, Callable[[str], str]]] = {
    SLACK: slack_webhook,
    SLACK_DATA: slack_webhook,
    PAGERDUTY: routing_key,
    SMTP: lambda _: "",
    DEAD_MANS_SWITCH: https_url,
}
"""The operator's secrets that enable a receiver, each with the function that returns the form it must have."""
