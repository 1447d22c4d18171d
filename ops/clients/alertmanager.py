"""Alertmanager's HTTP API, as far as operating the stack needs it: https://prometheus.io/docs/alerting/latest/clients/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import httpx

from ops.errors import FAILURE, StackError
from ops.services import ALERTMANAGERS, PUBLISHED, local_address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

TIMEOUT = 10.0
"""Seconds for one answer."""
PORTS = tuple(published.port for published in PUBLISHED if published.service in ALERTMANAGERS)


class Alert(TypedDict):
    """One alert; `state` is firing, silenced or inhibited, `since` is its start as Alertmanager writes it."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    since: str
    silences: list[str]


class Silence(TypedDict):
    """One silence that counts now, or will."""

    id: str
    matchers: dict[str, str]
    until: str
    by: str
    why: str


class Alertmanager:
    """One Alertmanager.

    Args:
        url: Where it listens.
        transport: For tests: answers instead of the network.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, transport=transport)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer that is none of its refusals.

        Raises:
            StackError: It does not answer, or refuses.
        """
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise StackError(
                f"Alertmanager cannot be reached: {error}",
                where=self.url,
                hint="is the profile observability on? ./ops/stack status",
                code=FAILURE,
            ) from error
        if response.is_error:
            raise StackError(
                f"Alertmanager refuses: {response.text.strip()[:200] or response.status_code}",
                where=f"{method} {self.url}{path}",
                code=FAILURE,
            )
        return response

    def answer(self) -> None:
        """Does nothing but answer."""
        self._ask("GET", "/-/healthy")

    def alerts(self) -> list[Alert]:
        """All that it has, by name and start."""
        found = self._ask("GET", "/api/v2/alerts").json()
        return sorted(map(as_alert, found), key=lambda alert: (alert["labels"].get("alertname", ""), alert["since"]))

    def silences(self) -> list[Silence]:
        """Those that have not ended."""
        found = self._ask("GET", "/api/v2/silences").json()
        return [
            Silence(
                id=silence["id"],
                matchers={matcher["name"]: matcher["value"] for matcher in silence["matchers"]},
                until=silence["endsAt"],
                by=silence["createdBy"],
                why=silence["comment"],
            )
            for silence in found
            if silence["status"]["state"] != "expired"
        ]

    def silence(self, matchers: Mapping[str, str], start: datetime, end: datetime, by: str, why: str) -> str:
        """Mutes what has these labels; returns the silence's id."""
        asked = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in matchers.items()
            ],
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
            "createdBy": by,
            "comment": why,
        }
        made: str = self._ask("POST", "/api/v2/silences", json=asked).json()["silenceID"]
        return made

    def end_silence(self, silence: str) -> None:
        """Ends a silence now."""
        self._ask("DELETE", f"/api/v2/silence/{silence}")

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Gives it alerts, as Prometheus does."""
        self._ask("POST", "/api/v2/alerts", json=alerts)

    def notifications(self, integration: str) -> tuple[int, int]:
        """How many messages it has tried to send by this way since its start, and how many of them in vain."""
        lines = self._ask("GET", "/metrics").text.splitlines()

        def total(name: str) -> int:
            label = f'integration="{integration}"'
            found = [line for line in lines if line.startswith(name + "{") and label in line]
            return int(sum(float(line.rpartition(" ")[2]) for line in found))

        return total("alertmanager_notifications_total"), total("alertmanager_notifications_failed_total")


def as_alert(found: Mapping[str, Any]) -> Alert:
    """An alert of its answer."""
    status_ = found["status"]
    state = "silenced" if status_["silencedBy"] else "inhibited" if status_["inhibitedBy"] else "firing"
    return Alert(
        labels=found["labels"],
        annotations=found["annotations"],
        state=state,
        since=found["startsAt"],
        silences=status_["silencedBy"],
    )


def both(settings: Mapping[str, str]) -> list[Alertmanager]:
    """The stack's two."""
    return [Alertmanager(local_address(settings, port)) for port in PORTS]


def any_that_answers(candidates: list[Alertmanager]) -> Alertmanager:
    """The first that answers: each knows all alerts and silences.

    Raises:
        StackError: None does.
    """
    failed: StackError | None = None
    for candidate in candidates:
        try:
            candidate.answer()
        except StackError as error:
            failed = error
        else:
            return candidate
    raise StackError(
        "no Alertmanager answers",
        where=", ".join(candidate.url for candidate in candidates),
        hint="is the profile observability on? ./ops/stack status; ./ops/stack up starts what is missing",
        code=FAILURE,
    ) from failed
