"""Send alerts to each Alertmanager separately. The Alertmanagers are a cluster and send each message once.

Tasks reach them through a door of the gateway only (compose/gateway/haproxy.cfg): it takes one finding in a request, in
the form that `body` returns, and shows no other alerts than findings.

An unreachable Alertmanager costs a few seconds and a line in the log. It receives the missed alerts at a later check.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from airflow_ha.monitoring.alerts import SOURCE, alerts_to_keep, payload
from airflow_ha.monitoring.check_state import SentAlert
from airflow_ha.monitoring.findings import ALERT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_BODY = 12_000
"""Bytes that the gateway accepts for one finding."""

TIMEOUT = 3.0
"""Seconds per request."""

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
    *,
    log_in: tuple[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> Delivery:
    """Send the alerts to every Alertmanager.

    Args:
        alerts: firing alerts, and resolved ones that some Alertmanager has missed.
        alertmanagers: their URLs.
        at: the time of this check.
        log_in: user and password at the gateway.
        transport: replaces the network in tests.
    """
    alerts = list(alerts)
    unreachable: dict[str, str] = {}
    with httpx.Client(timeout=TIMEOUT, auth=log_in, transport=transport) as http:
        for url in alertmanagers:
            try:
                for alert in payload(alerts, url, active_alerts(http, url), at):
                    send(http, url, alert)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
                unreachable[url] = f"{type(error).__name__} {error}".strip()
                log.warning("cannot send alerts to the Alertmanager %s: %s", url, unreachable[url])
    reached = [url for url in alertmanagers if url not in unreachable]
    return Delivery(alerts_to_keep(alerts, reached), unreachable, len(reached))


def send(http: httpx.Client, url: str, alert: Mapping[str, Any]) -> None:
    """Send one alert.

    Raises:
        httpx.HTTPError: the Alertmanager does not accept it.
    """
    headers = {"Content-Type": "application/json"}
    http.post(f"{url}/api/v2/alerts", content=body(alert), headers=headers).raise_for_status()


def body(alert: Mapping[str, Any]) -> bytes:
    """Return the request of one alert: alertname and source come first, and long texts are cut to MAX_BODY bytes."""
    first = {name: alert["labels"][name] for name in ("alertname", "source")}
    content = b""
    for length in (MAX_BODY, 4_000, 1_000, 200):
        texts = {name: text[:length] for name, text in alert["annotations"].items()}
        whole = {**alert, "labels": {**first, **alert["labels"]}, "annotations": texts}
        content = json.dumps([whole], separators=(",", ":")).encode()
        if len(content) <= MAX_BODY:
            break
    return content


def active_alerts(http: httpx.Client, url: str) -> list[SentAlert]:
    """Return the monitoring DAG's alerts that fire in an Alertmanager."""
    response = http.get(f"{url}/api/v2/alerts", params={"filter": f'source="{SOURCE}"'})
    response.raise_for_status()
    return [
        SentAlert(alert["labels"], alert["annotations"], datetime.fromisoformat(alert["startsAt"]))
        for alert in response.json()
        # The gateway takes no others, not even their end: those of an earlier version expire.
        if alert["labels"]["alertname"] in ALERT_NAMES
    ]
