"""Send alerts to each Alertmanager separately. The Alertmanagers are a cluster and send each message once.

An unreachable Alertmanager costs a few seconds and a line in the log. It receives the missed alerts at a later check.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import httpx

from airflow_ha.monitoring.alerts import SOURCE, alerts_to_keep, payload
from airflow_ha.monitoring.check_state import SentAlert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TIMEOUT = 3.0
"""Seconds per request; each Alertmanager gets two requests."""

log = logging.getLogger(__name__)


class AlertmanagersUnreachableError(Exception):
    """No Alertmanager accepted the alerts."""


@dataclass(frozen=True)
class Delivery:
    """Result of the delivery of one check's alerts.

    Attributes:
        alerts: the alerts that the next check needs.
        unreachable: the reason, by URL of each Alertmanager that accepted nothing.
        reached: the number of Alertmanagers that accepted everything.
    """

    alerts: tuple[SentAlert, ...]
    unreachable: Mapping[str, str]
    reached: int

    def require(self) -> None:
        """Raise an error if Alertmanagers are configured and none was reached.

        Raises:
            AlertmanagersUnreachableError: names each one's reason.
        """
        if self.unreachable and not self.reached:
            reasons = "; ".join(f"{url}: {reason}" for url, reason in self.unreachable.items())
            raise AlertmanagersUnreachableError(f"cannot deliver alerts: no Alertmanager accepted them: {reasons}")


def alertmanager_urls(text: str | None) -> list[str]:
    """Return the distinct URLs of a comma-separated list."""
    return list(dict.fromkeys(url.strip().rstrip("/") for url in (text or "").split(",") if url.strip()))


def deliver(
    alerts: Iterable[SentAlert],
    alertmanagers: Sequence[str],
    at: datetime,
    transport: httpx.BaseTransport | None = None,
) -> Delivery:
    """Send the alerts to every Alertmanager.

    Args:
        alerts: firing alerts, and resolved ones that some Alertmanager has missed.
        alertmanagers: their URLs.
        at: the time of this check.
        transport: replaces the network in tests.
    """
    alerts = list(alerts)
    unreachable: dict[str, str] = {}
    with httpx.Client(timeout=TIMEOUT, transport=transport) as http:
        for url in alertmanagers:
            try:
                to_send = payload(alerts, url, active_alerts(http, url), at)
                if to_send:
                    http.post(f"{url}/api/v2/alerts", json=to_send).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
                unreachable[url] = f"{type(error).__name__} {error}".strip()
                log.warning("cannot send alerts to the Alertmanager %s: %s", url, unreachable[url])
    reached = [url for url in alertmanagers if url not in unreachable]
    return Delivery(alerts_to_keep(alerts, reached), unreachable, len(reached))


def active_alerts(http: httpx.Client, url: str) -> list[SentAlert]:
    """Return the monitoring DAG's alerts that fire in an Alertmanager."""
    response = http.get(f"{url}/api/v2/alerts", params={"filter": f'source="{SOURCE}"'})
    response.raise_for_status()
    return [
        SentAlert(alert["labels"], alert["annotations"], datetime.fromisoformat(alert["startsAt"]))
        for alert in response.json()
    ]
