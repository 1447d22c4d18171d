"""What we ask Alertmanager, and what we make of its answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from ops.clients import alertmanager
from ops.clients.alertmanager import Alertmanager
from ops.errors import StackError

FOUND = {
    "labels": {"alertname": "PostgresDown", "severity": "page"},
    "annotations": {"summary": "Postgres is down"},
    "startsAt": "2026-01-01T00:00:00.000Z",
    "status": {"silencedBy": [], "inhibitedBy": []},
}
AT = datetime(2026, 1, 1, tzinfo=UTC)


def answering(content: object = None, status: int = 200, text: str | None = None) -> tuple[Alertmanager, list]:
    """An Alertmanager that says the same to everything; and what it was asked."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, text=json.dumps(content) if text is None else text)

    return Alertmanager("http://am", transport=httpx.MockTransport(answer)), asked


def away() -> Alertmanager:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    return Alertmanager("http://away", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"silencedBy": [], "inhibitedBy": []}, "firing"),
        ({"silencedBy": ["s"], "inhibitedBy": ["i"]}, "silenced"),
        ({"silencedBy": [], "inhibitedBy": ["i"]}, "inhibited"),
    ],
)
def test_an_alert_is_firing_silenced_or_inhibited(status, state):
    one, _ = answering([{**FOUND, "status": status}])
    assert [alert["state"] for alert in one.alerts()] == [state]


def test_a_silence_has_the_labels_the_times_who_and_why():
    one, asked = answering({"silenceID": "an-id"})
    matchers = {"alertname": "PostgresDown", "component": "x"}
    assert one.silence(matchers, AT, AT.replace(hour=2), "me", "upgrade") == "an-id"
    sent = json.loads(asked[0].content)
    assert {(matcher["name"], matcher["value"]) for matcher in sent["matchers"]} == set(matchers.items())
    assert not any(matcher["isRegex"] for matcher in sent["matchers"])
    assert (sent["startsAt"], sent["endsAt"]) == ("2026-01-01T00:00:00+00:00", "2026-01-01T02:00:00+00:00")
    assert (sent["createdBy"], sent["comment"]) == ("me", "upgrade")


def test_silences_that_have_ended_are_left_out():
    silence = {"id": "a", "matchers": [], "endsAt": "", "createdBy": "", "comment": "", "status": {"state": "active"}}
    one, _ = answering([silence, {**silence, "id": "b", "status": {"state": "expired"}}])
    assert [found["id"] for found in one.silences()] == ["a"]


def test_messages_are_counted_over_all_reasons():
    one, _ = answering(
        text='alertmanager_notifications_total{integration="slack"} 5\n'
        'alertmanager_notifications_total{integration="webhook"} 50\n'
        'alertmanager_notifications_failed_total{integration="slack",reason="clientError"} 1\n'
        'alertmanager_notifications_failed_total{integration="slack",reason="serverError"} 2\n'
    )
    assert one.notifications("slack") == (5, 3)


def test_a_refusal_is_told_in_its_words():
    one, _ = answering(status=400, text="bad matcher")
    with pytest.raises(StackError, match="Alertmanager refuses: bad matcher"):
        one.alerts()


def test_of_two_the_one_that_answers_is_asked():
    one, _ = answering("ok")
    assert alertmanager.any_that_answers([away(), one]) is one


def test_when_none_answers_it_says_so_and_what_to_do():
    with pytest.raises(StackError, match="no Alertmanager answers") as error:
        alertmanager.any_that_answers([away(), away()])
    assert "./ops/stack up" in error.value.hint
    assert error.value.code == 1
