"""The alerts that fire now, from Alertmanager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.clients import alertmanager
from ops.doctor.finding import Finding, OutOfScopeError, Urgency
from ops.services import OBSERVABILITY
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.clients.alertmanager import Alert
    from ops.doctor.finding import Examined

URGENCIES: Final = {"page": Urgency.URGENT, "ticket": Urgency.SOON}
"""By severity. Alerts of severity `none` only inhibit others, or prove that alerting works."""


def gather(examined: Examined) -> list[Alert]:
    """Return all alerts.

    Raises:
        StackError: No Alertmanager answers, or observability is off.
    """
    if OBSERVABILITY not in profiles(examined.settings):
        raise OutOfScopeError(
            f"cannot read alerts: the profile {OBSERVABILITY} is off",
            hint=f"run ./ops/stack up --profile {OBSERVABILITY}, with your other profiles",
        )
    return alertmanager.any_that_answers(alertmanager.both(examined.settings)).alerts()


def firing(alerts: list[Alert]) -> Iterator[Finding]:
    """Yield a finding for each alert that fires and is neither silenced nor inhibited."""
    for alert in alerts:
        urgency = URGENCIES.get(alert["labels"].get("severity", ""))
        if urgency and alert["state"] == "firing":
            name = alert["labels"].get("alertname", "")
            summary = alert["annotations"].get("summary", "")
            yield Finding(urgency, f"alert {name}", "firing", summary, f"read alerting/runbooks/{name}.md")
