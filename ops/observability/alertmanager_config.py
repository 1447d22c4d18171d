"""Alertmanager's configuration: alerting/alertmanager/alertmanager.yaml, and the ways out that have a secret.

Pure: settings and the names of the secrets that exist go in, the text of each file comes out.
"""

from __future__ import annotations

import copy
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

FOLDER: Final = "alerting/alertmanager"

SLACK: Final = "slack_webhook_url"
SLACK_DATA: Final = "slack_webhook_url_data"
PAGERDUTY: Final = "pagerduty_routing_key"
SMTP: Final = "smtp_password"
DEAD_MANS_SWITCH: Final = "dead_mans_switch_url"

STUB_SLACK_URL: Final = "http://slack-stub:8025/services/stub/platform/alerts"
STUB_SWITCH_URL: Final = "http://slack-stub:8025/watchdog"

EMAIL_SETTINGS: Final = ("ALERT_EMAIL_SMARTHOST", "ALERT_EMAIL_FROM", "ALERT_EMAIL_TO")
EMAIL_USER: Final = "ALERT_EMAIL_USER"


# ---- the secrets


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


OPTIONAL_SECRETS: Final[dict[str, Callable[[str], str]]] = {
    SLACK: slack_webhook,
    SLACK_DATA: slack_webhook,
    PAGERDUTY: routing_key,
    SMTP: lambda _: "",
    DEAD_MANS_SWITCH: https_url,
}
"""The operator's secrets that switch a way out on, and what each says of a value that is not of its kind."""


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


def check_email(settings: Mapping[str, str], secrets: Collection[str], shown: str) -> None:
    """Refuses half of an e-mail set-up.

    Raises:
        StackError: naming what is missing, or malformed.
    """
    given = [key for key in EMAIL_SETTINGS if settings.get(key)]
    if not given and SMTP not in secrets:
        return
    missing = [key for key in EMAIL_SETTINGS if key not in given]
    if missing or SMTP not in secrets:
        raise StackError(
            f"alerts by e-mail are set up by halves: {', '.join(missing) or f'the secret {SMTP}'} is missing",
            where=shown if missing else f"the secret {SMTP}",
            cure=f"{', '.join(EMAIL_SETTINGS)} are in .env, the password in the secret {SMTP}: give all, or none",
        )
    host = settings["ALERT_EMAIL_SMARTHOST"]
    found = re.fullmatch(r"[A-Za-z0-9._-]+:(\d{1,5})", host)
    if not found or not 0 < int(found[1]) < 65536:
        raise StackError(f"ALERT_EMAIL_SMARTHOST={host} is not valid", where=shown, cure="it takes HOST:PORT")
    for key in EMAIL_SETTINGS[1:]:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", settings[key]):
            raise StackError(f"{key}={settings[key]} is not valid", where=shown, cure=f"{key} takes an e-mail address")


# ---- the configuration


def render(folder: Path, settings: Mapping[str, str], secrets: Collection[str]) -> str:
    """The whole configuration, as YAML.

    Args:
        folder: alerting/alertmanager.
        settings: .env.
        secrets: Which optional secrets exist.
    """
    base = read(folder / "alertmanager.yaml")
    config = {key: value for key, value in base.items() if not key.startswith("x-")}
    receivers: dict[str, dict[str, Any]] = {receiver["name"]: receiver for receiver in config["receivers"]}
    if SLACK_DATA not in secrets:
        # The same webhook: it need not be told twice.
        receivers["every-way"]["slack_configs"] = receivers["every-way"]["slack_configs"][:1]
    if not stub_is_wanted(secrets) and DEAD_MANS_SWITCH not in secrets:
        receivers["dead-mans-switch"].pop("webhook_configs")
    if PAGERDUTY in secrets:
        add(receivers, read(folder / "pagerduty.yaml"))
    if SMTP in secrets:
        values = {key: settings[key] for key in EMAIL_SETTINGS}
        values[EMAIL_USER] = settings.get(EMAIL_USER) or settings["ALERT_EMAIL_FROM"]
        add(receivers, filled(read(folder / "email.yaml"), values))
    templates = sorted((folder / "templates").glob("*.tmpl"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in templates)).hexdigest()[:12]
    return (
        f"# Written by `./ops/stack up` from {FOLDER}; do not edit.\n"
        # A changed template changes this file, so that it is loaded.
        f"# Templates: {digest}\n" + yaml.dump(config, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=10_000)
        # No anchors: this is read by people too.
    )


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Writes everything out."""
        return True


def read(path: Path) -> dict[str, Any]:
    """A file of alerting/alertmanager; nothing in it shares a part with another."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return copy.deepcopy(content)


def add(receivers: Mapping[str, dict[str, Any]], fragment: Mapping[str, Any]) -> None:
    """Gives the receivers that a fragment names what else is in it."""
    for name in fragment["receivers"]:
        receivers[name].update({key: value for key, value in fragment.items() if key != "receivers"})


def filled(fragment: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """A fragment with the values that its e-mail settings name."""
    for config in fragment["email_configs"]:
        config.update(
            {key: values[value] for key, value in config.items() if isinstance(value, str) and value in values}
        )
    return fragment


def links(airflow: str, grafana: str, runbooks: str, silences: str) -> str:
    """The templates that hold addresses; one that is empty is a page that is not there, and its command is named.

    Args:
        airflow: Airflow's address.
        grafana: Grafana's.
        runbooks: Where the repository's files are read.
        silences: Alertmanager's own page.
    """
    dashboard = f"<{grafana}{{{{ . }}}}|Dashboard>" if grafana else "Dashboard: `./ops/stack dashboards --render DIR`"
    page = ""
    if silences:
        # A filter in Alertmanager's own form: {alertname="X"}.
        page = f"<{silences}/#/silences/new?filter=%7Balertname%3D%22{{{{ .Labels.alertname }}}}%22%7D|Silence> or "
    command = '`./ops/stack silence {{ .Labels.alertname }} --for 2h --why "…"`'
    silence = f"{page}{command}" if page else f"Silence: {command}"
    definitions = {
        "base.airflow": airflow,
        "base.runbooks": runbooks,
        "slack.dashboard": dashboard,
        "slack.silence": silence,
    }
    return "".join(f'{{{{ define "{name}" }}}}{text}{{{{ end }}}}\n' for name, text in definitions.items())
