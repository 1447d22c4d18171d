"""The evaluation of an alert drill, and the page of its results."""

from __future__ import annotations

import pytest

from ops.clients.slack_stub import Message, message_of
from ops.drills import alert_drills
from ops.drills.alert_drills import ALERT_DRILLS, AlertDrill, AlertOutcome, ExpectedAlert
from ops.drills.catalogue import one_instance
from ops.markdown_table import table_rows

EXPECTED = ExpectedAlert("AirflowComponentGone", ("component", "worker"))
DRILL = AlertDrill("workers", one_instance("worker"), "kill", (EXPECTED,))


def message(alert: str, **labels: str) -> Message:
    return Message(0.0, True, alert, labels, f"{alert} {labels}", "")


def outcome(name: str, fired: float, resolved: float) -> AlertOutcome:
    """Return the outcome of a drill of the catalogue that expects one alert."""
    drill = next(drill for drill in ALERT_DRILLS if drill.name == name)
    alert = drill.expected[0].display_name
    return AlertOutcome(drill, {alert: fired}, {alert: resolved})


def test_message_has_the_alerts_name_and_labels():
    fields = [{"title": "Alert", "value": "GatewayDown"}, {"title": "Labels", "value": "component=a job=b "}]
    payload = {"attachments": [{"title": "[FIRING] Page: gone", "text": "since", "fields": fields}]}
    assert message_of(5, payload) == Message(
        5.0, True, "GatewayDown", {"component": "a", "job": "b"}, "[FIRING] Page: gone", "since"
    )


def test_message_of_another_sender_is_no_alert():
    assert message_of(5, {"text": "hello"}).alert == ""


def test_alerts_in_time_break_no_promise():
    result = AlertOutcome(DRILL, {EXPECTED.display_name: 50.0}, {EXPECTED.display_name: 80.0})
    messages = [message("AirflowComponentGone", component="worker")]
    assert list(alert_drills.broken_promises(result, messages)) == []


@pytest.mark.parametrize(
    ("fired", "resolved", "messages", "figures"),
    [
        (None, 80.0, [], ["not fired"]),
        (61.0, 80.0, [], ["61 s", "60 s"]),
        (50.0, None, [], ["not resolved"]),
        (50.0, 91.0, [], ["91 s", "90 s"]),
        (50.0, 80.0, [message("AirflowCanaryLate")], ["AirflowCanaryLate"]),
        (50.0, 80.0, [message("AirflowComponentGone", component="scheduler")], ["scheduler"]),
    ],
)
def test_broken_promise_is_named_with_its_figures(fired, resolved, messages, figures):
    name = EXPECTED.display_name
    result = AlertOutcome(DRILL, {} if fired is None else {name: fired}, {} if resolved is None else {name: resolved})
    [broken] = alert_drills.broken_promises(result, messages)
    assert all(figure in broken for figure in figures)


def test_page_keeps_the_rows_of_earlier_measurements():
    first = alert_drills.document([outcome("gateway", 38.0, 29.0)], "", "2 cores")
    second = alert_drills.document([outcome("redis", 43.0, 30.0)], first, "2 cores")
    assert table_rows(second) == [
        ("kill redis", "RedisDown", "43 s", "30 s", "yes"),
        ("kill gateway", "GatewayDown", "38 s", "29 s", "yes"),
    ]
    third = alert_drills.document([outcome("gateway", 50.0, 29.0)], second, "2 cores")
    assert ("kill gateway", "GatewayDown", "50 s", "29 s", "yes") in table_rows(third)


def test_recorded_page_has_the_current_form():
    page = alert_drills.PAGE.read_text(encoding="utf-8")
    machine = page.split("Measured on ")[1].split(";")[0]
    assert alert_drills.document([], page, machine) == page
