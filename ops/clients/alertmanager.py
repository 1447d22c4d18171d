"""Client of Alertmanager's HTTP API: https://prometheus.io/docs/alerting/latest/clients/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import httpx

from ops.clients import transport
from ops.errors import FAILURE, StackError
from ops.services import ALERTMANAGERS, PUBLISHED, local_address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

TIMEOUT = 10.0
"""Seconds, for one response."""
PORTS = tuple(published.port for published in PUBLISHED if published.service in ALERTMANAGERS)


class Alert(TypedDict):
    """An alert.

    `state` is firing, silenced or inhibited; `since` is its start in Alertmanager's format; `silences` has ids, and
    `inhibited_by` the names of alerts.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    since: str
    silences: list[str]
    inhibited_by: list[str]


class Silence(TypedDict):
    """An active or pending silence."""

    id: str
    matchers: dict[str, str]
    until: str
    by: str
    why: str


class Alertmanager:
    """One Alertmanager.

    Args:
        url: Its base URL.
        log_in: User and password.
        transport: Replaces the network in tests.
    """

    def __init__(
        self, url: str, log_in: tuple[str, str] | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, auth=log_in, timeout=TIMEOUT, transport=transport)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return a successful response.

        Raises:
            StackError: It does not answer, or refuses the request.
        """
        response = transport.request(self._http, "Alertmanager", method, path, **options)
        transport.require_log_in(response, "Alertmanager")
        if response.is_error:
            raise StackError(
                f"cannot call Alertmanager: {response.text.strip()[:200] or response.status_code}",
                where=f"{method} {self.url}{path}",
                code=FAILURE,
            )
        return response

    def answer(self) -> None:
        """Raise StackError unless it answers."""
        self._request("GET", "/-/healthy")

    def alerts(self) -> list[Alert]:
        """Return all its alerts, by name and start."""
        entries = self._request("GET", "/api/v2/alerts").json()
        names = {entry["fingerprint"]: entry["labels"].get("alertname", "") for entry in entries}
        alerts = [parse_alert(entry, names) for entry in entries]
        return sorted(alerts, key=lambda alert: (alert["labels"].get("alertname", ""), alert["since"]))

    def silences(self) -> list[Silence]:
        """Return the silences that have not expired."""
        silences = self._request("GET", "/api/v2/silences").json()
        return [
            Silence(
                id=silence["id"],
                matchers={matcher["name"]: matcher["value"] for matcher in silence["matchers"]},
                until=silence["endsAt"],
                by=silence["createdBy"],
                why=silence["comment"],
            )
            for silence in silences
            if silence["status"]["state"] != "expired"
        ]

    def silence(self, matchers: Mapping[str, str], start: datetime, end: datetime, by: str, why: str) -> str:
        """Silence the alerts with these labels; return the silence's id."""
        content = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in matchers.items()
            ],
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
            "createdBy": by,
            "comment": why,
        }
        identity: str = self._request("POST", "/api/v2/silences", json=content).json()["silenceID"]
        return identity

    def end_silence(self, silence: str) -> None:
        """Expire a silence."""
        self._request("DELETE", f"/api/v2/silence/{silence}")

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Send alerts, as Prometheus does."""
        self._request("POST", "/api/v2/alerts", json=alerts)

    def notifications(self, integration: str) -> tuple[int, int]:
        """Return how many messages it has sent or failed to send by an integration, and how many of these failed."""
        lines = self._request("GET", "/metrics").text.splitlines()

        def total(name: str) -> int:
            label = f'integration="{integration}"'
            samples = [line for line in lines if line.startswith(name + "{") and label in line]
            return int(sum(float(line.rpartition(" ")[2]) for line in samples))

        return total("alertmanager_notifications_total"), total("alertmanager_notifications_failed_total")


def parse_alert(entry: Mapping[str, Any], names: Mapping[str, str]) -> Alert:
    """Return an alert from an entry of the API's response.

    Args:
        entry: The entry.
        names: The name of each alert by its fingerprint.
    """
    status = entry["status"]
    state = "silenced" if status["silencedBy"] else "inhibited" if status["inhibitedBy"] else "firing"
    return Alert(
        labels=entry["labels"],
        annotations=entry["annotations"],
        state=state,
        since=entry["startsAt"],
        silences=status["silencedBy"],
        inhibited_by=sorted({names[each] for each in status["inhibitedBy"] if each in names}),
    )


def both(settings: Mapping[str, str]) -> list[Alertmanager]:
    """Return the stack's two Alertmanagers.

    Raises:
        StackError: The password is not readable.
    """
    log_in = transport.page_log_in(settings)
    return [Alertmanager(local_address(settings, port), log_in) for port in PORTS]


def any_that_answers(candidates: list[Alertmanager]) -> Alertmanager:
    """Return the first that answers: each has all alerts and silences.

    Raises:
        StackError: None answers.
    """
    last_error: StackError | None = None
    for candidate in candidates:
        try:
            candidate.answer()
        except StackError as error:
            last_error = error
        else:
            return candidate
    raise StackError(
        "cannot reach Alertmanager: no instance answers",
        where=", ".join(candidate.url for candidate in candidates),
        hint=f"{transport.OBSERVABILITY_HINT}; ./ops/stack up starts missing services",
        code=FAILURE,
    ) from last_error
