"""The Alertmanagers: each is told everything, by itself. They are a cluster, and send each message once.

One that is away costs a few seconds and a line in the log. What it missed it is told when it is back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from airflow_ha.monitoring.alerts import SOURCE, message, taken
from airflow_ha.monitoring.check_state import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TIMEOUT = 3.0
"""Seconds for one answer; there are two for each Alertmanager."""

log = logging.getLogger(__name__)


class AlertmanagersAwayError(Exception):
    """No Alertmanager took what was found."""


@dataclass(frozen=True)
class Delivery:
    """What became of one check's alerts.

    Attributes:
        told: what is to be remembered.
        away: why, by each Alertmanager that took nothing.
        reached: how many took everything.
    """

    told: tuple[Told, ...]
    away: Mapping[str, str]
    reached: int

    def require(self) -> None:
        """Refuse when there are Alertmanagers and none was reached.

        Raises:
            AlertmanagersAwayError: with each one's reason.
        """
        if self.away and not self.reached:
            reasons = "; ".join(f"{url}: {reason}" for url, reason in self.away.items())
            raise AlertmanagersAwayError(f"no Alertmanager took the findings: {reasons}")


def addresses(text: str | None) -> list[str]:
    """The URLs in a comma-separated list; none where it is empty."""
    return list(dict.fromkeys(url.strip().rstrip("/") for url in (text or "").split(",") if url.strip()))


def deliver(
    told: Iterable[Told], alertmanagers: Sequence[str], at: datetime, transport: httpx.BaseTransport | None = None
) -> Delivery:
    """Tell every Alertmanager.

    Args:
        told: what lasts, and the ends that some have not taken.
        alertmanagers: their URLs.
        at: the time of this check.
        transport: for tests: answers instead of the network.
    """
    told = list(told)
    away: dict[str, str] = {}
    with httpx.Client(timeout=TIMEOUT, transport=transport) as http:
        for url in alertmanagers:
            try:
                alerts = message(told, url, active(http, url), at)
                if alerts:
                    http.post(f"{url}/api/v2/alerts", json=alerts).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
                away[url] = f"{type(error).__name__} {error}".strip()
                log.warning("the Alertmanager %s was not told: %s", url, away[url])
    heard = [url for url in alertmanagers if url not in away]
    return Delivery(taken(told, heard), away, len(heard))


def active(http: httpx.Client, url: str) -> list[Told]:
    """What an Alertmanager holds of ours and has not ended."""
    response = http.get(f"{url}/api/v2/alerts", params={"filter": f'source="{SOURCE}"'})
    response.raise_for_status()
    return [_told(alert) for alert in response.json()]


def _told(alert: dict[str, Any]) -> Told:
    return Told(alert["labels"], alert["annotations"], datetime.fromisoformat(alert["startsAt"]))
