"""Alertmanager's configuration, from alerting/alertmanager, the settings and the names of the existing secrets."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, Final

import yaml

from ops.errors import StackError
from ops.notification_secrets import (
    DEAD_MANS_SWITCH,
    PAGERDUTY,
    SLACK_DATA,
    SMTP,
    stub_is_wanted,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

FOLDER: Final = "alerting/alertmanager"
EMAIL_SETTINGS: Final = ("ALERT_EMAIL_SMARTHOST", "ALERT_EMAIL_FROM", "ALERT_EMAIL_TO")
EMAIL_USER: Final = "ALERT_EMAIL_USER"


def check_email(settings: Mapping[str, str], secrets: Collection[str], shown: str) -> None:
    """Check the e-mail settings: all of them or none.

    Raises:
        StackError: A setting is missing.
    """
    present = [key for key in EMAIL_SETTINGS if settings.get(key)]
    if not present and SMTP not in secrets:
        return
    missing = [key for key in EMAIL_SETTINGS if key not in present]
    if missing or SMTP not in secrets:
        names = f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'}" if missing else f"the secret {SMTP} is"
        raise StackError(
            f"cannot set up alerts by e-mail: {names} missing",
            where=shown if missing else f"the secret {SMTP}",
            hint=f"set {', '.join(EMAIL_SETTINGS)} in .env and the password in the secret {SMTP}, or none of them",
        )


# ---- the configuration


def render(folder: Path, settings: Mapping[str, str], secrets: Collection[str]) -> str:
    """Return the whole configuration as YAML.

    Args:
        folder: alerting/alertmanager.
        settings: Of .env.
        secrets: The optional secrets that exist.
    """
    base = read(folder / "alertmanager.yaml")
    config = {key: value for key, value in base.items() if not key.startswith("x-")}
    receivers: dict[str, dict[str, Any]] = {receiver["name"]: receiver for receiver in config["receivers"]}
    if SLACK_DATA not in secrets:
        # Both configurations would use the same webhook.
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
        # A changed template changes this file, which triggers a reload.
        f"# Templates: {digest}\n" + yaml.dump(config, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=10_000)
        # No anchors: operators read this file too.
    )


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write no YAML anchors."""
        return True


def read(path: Path) -> dict[str, Any]:
    """Return a file of alerting/alertmanager, with aliases copied: receivers are changed one by one."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return copy.deepcopy(content)


def add(receivers: Mapping[str, dict[str, Any]], fragment: Mapping[str, Any]) -> None:
    """Add a fragment's configurations to the receivers that it names."""
    for name in fragment["receivers"]:
        receivers[name].update({key: value for key, value in fragment.items() if key != "receivers"})


def filled(fragment: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the fragment with the values of the settings that it names."""
    for config in fragment["email_configs"]:
        config.update(
            {key: values[value] for key, value in config.items() if isinstance(value, str) and value in values}
        )
    return fragment


def links(airflow: str, grafana: str, runbooks: str, silences: str) -> str:
    """Return the templates with addresses. Where an address is empty, the text names a command instead.

    Args:
        airflow: Airflow's URL.
        grafana: Grafana's URL.
        runbooks: The base URL of the repository's files.
        silences: The URL of Alertmanager's UI.
    """
    dashboard = f"<{grafana}{{{{ . }}}}|Dashboard>" if grafana else "Dashboard: `./ops/stack dashboards --render DIR`"
    page = ""
    if silences:
        page = f'<{silences}/#/silences/new?filter=%7B{{{{ template "silence.filter" . }}}}%7D|Silence> or '
    command = '`./ops/stack silence {{ .alertname }}{{ template "slack.silence_options" . }} --for 2h --why "…"`'
    silence = f"{page}{command}" if page else f"Silence: {command}"
    definitions = {
        "base.airflow": airflow,
        "base.runbooks": runbooks,
        "slack.dashboard": dashboard,
        "slack.silence": silence,
    }
    return "".join(f'{{{{ define "{name}" }}}}{text}{{{{ end }}}}\n' for name, text in definitions.items())
