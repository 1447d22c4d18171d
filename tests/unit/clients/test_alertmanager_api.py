"""The client of Alertmanager's API: requests, parsed responses, errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from ops.clients import alertmanager
from ops.clients.alertmanager import Alertmanager
from ops.errors import StackError

ENTRY = {
    "labels": {"alertname": "PostgresDown", "severity": "page"},
    "annotations": {"summary": "Postgres is down"},
    "startsAt": "2026-01-01T00:00:00.000Z",
    "fingerprint": "f",
    "status": {"silencedBy": [], "inhibitedBy": []},
}
AT = datetime(2026, 1, 1, tzinfo=UTC)


def answering(content: object = None, status: int = 200, text: str | None = None) -> tuple[Alertmanager, list]:
    """Return an Alertmanager with the same response to every request, and the requests."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, text=json.dumps(content) if text is None else text)

    return Alertmanager("http://am", transport=httpx.MockTransport(answer)), requests


def unreachable() -> Alertmanager:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    return Alertmanager("http://down", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"silencedBy": [], "inhibitedBy": []}, "firing"),
        ({"silencedBy": ["s"], "inhibitedBy": ["i"]}, "silenced"),
        ({"silencedBy": [], "inhibitedBy": ["i"]}, "inhibited"),
    ],
)
def test_an_alert_is_firing_silenced_or_inhibited(status, state):
    api, _ = answering([{**ENTRY, "status": status}])
    assert [alert["state"] for alert in api.alerts()] == [state]


def test_a_silence_has_labels_times_author_and_reason():
    api, requests = answering({"silenceID": "an-id"})
    matchers = {"alertname": "PostgresDown", "component": "x"}
    assert api.silence(matchers, AT, AT.replace(hour=2), "me", "upgrade") == "an-id"
    sent = json.loads(requests[0].content)
    assert {(matcher["name"], matcher["value"]) for matcher in sent["matchers"]} == set(matchers.items())
    assert not any(matcher["isRegex"] for matcher in sent["matchers"])
    assert (sent["startsAt"], sent["endsAt"]) == ("2026-01-01T00:00:00+00:00", "2026-01-01T02:00:00+00:00")
    assert (sent["createdBy"], sent["comment"]) == ("me", "upgrade")


def test_expired_silences_are_left_out():
    silence = {"id": "a", "matchers": [], "endsAt": "", "createdBy": "", "comment": "", "status": {"state": "active"}}
    api, _ = answering([silence, {**silence, "id": "b", "status": {"state": "expired"}}])
    assert [silence["id"] for silence in api.silences()] == ["a"]


def test_failed_messages_are_summed_over_reasons():
    api, _ = answering(
        text='alertmanager_notifications_total{integration="slack"} 5\n'
        'alertmanager_notifications_total{integration="webhook"} 50\n'
        'alertmanager_notifications_failed_total{integration="slack",reason="clientError"} 1\n'
        'alertmanager_notifications_failed_total{integration="slack",reason="serverError"} 2\n'
    )
    assert api.notifications("slack") == (5, 3)


def test_a_refusal_is_reported_with_its_text():
    api, _ = answering(status=400, text="bad matcher")
    with pytest.raises(StackError, match="bad matcher"):
        api.alerts()


def test_the_alertmanager_that_answers_is_chosen():
    api, _ = answering("ok")
    assert alertmanager.any_that_answers([unreachable(), api]) is api


def test_no_answering_alertmanager_is_an_error():
    with pytest.raises(StackError, match="Alertmanager") as error:
        alertmanager.any_that_answers([unreachable(), unreachable()])
    assert "./ops/stack up" in error.value.hint
    assert error.value.code == 1
