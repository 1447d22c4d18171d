"""From a fault to the message in Slack, and to the resolved message.

Two of the alert drills; all of them take forty minutes: `./ops/stack drill --alerts --all`.
"""

from __future__ import annotations

import re
import time

import httpx
import pytest

from ops.clients import slack_stub
from ops.drills.alert_drills import ALERT_DRILLS, run_alert_drill
from ops.screen import report
from tests.stack import Stack, wait_until

FINDING_SECONDS = 120.0
RESOLVED_SECONDS = 240.0
"""A check a minute, and the data team's groups are updated every two."""

MINUTE = 60.0
CALL_SECONDS = 75.0
"""Between two calls of the dead man's switch: a minute, and the evaluations of Prometheus and Alertmanager."""


def assert_alert_drill_passes(stack: Stack, name: str) -> None:
    """Run an alert drill and print its times."""
    drill = next(drill for drill in ALERT_DRILLS if drill.name == name)
    outcome = run_alert_drill(drill, stack.project, stack.settings, report)
    print(f"{drill.name}: fired after {outcome.fired}, resolved after {outcome.resolved}")
    assert outcome.broken == []


@pytest.mark.nightly
def test_two_missing_components_alert_and_resolve_alone(healthy_stack: Stack):
    assert_alert_drill_passes(healthy_stack, "singles")


@pytest.mark.nightly
def test_a_failing_dag_alerts_once_with_links_and_resolves(
    healthy_stack: Stack,
):
    """Stop one Alertmanager: the other one sends one message."""
    stack, api = healthy_stack, healthy_stack.api
    (alertmanager,) = stack.containers("alertmanager-1")
    alertmanager.kill()
    try:
        api.http.delete("/api/v2/variables/tests_fixed")
        wait_until(lambda: api.has_dag("three_in_ten"), timeout=60, what="the DAG is there")
        for run in api.get("/dags/three_in_ten/dagRuns", limit=100)[
            "dag_runs"
        ]:  # of an earlier session: they count too
            api.http.delete(f"/api/v2/dags/three_in_ten/dagRuns/{run['dag_run_id']}").raise_for_status()
        since = time.time()
        runs = {api.trigger("three_in_ten", fail=number < 3): number < 3 for number in range(10)}
        failed = [run for run, fails in runs.items() if fails]
        for run, fails in runs.items():
            assert api.wait_for_run("three_in_ten", run, timeout=90) == ("failed" if fails else "success")
        ended = time.time()

        def messages(*, firing: bool) -> list[slack_stub.Message]:
            received = stack.slack.received(since, "AirflowDagRunsFailing", firing=firing)
            return [message for message in received if "three_in_ten" in message.title + message.text]

        (message,) = wait_until(
            lambda: messages(firing=True), timeout=FINDING_SECONDS, what="the failing DAG is in Slack"
        )
        print(f"received {message.received - ended:.0f} s after the last run ended")
        assert "three_in_ten.work" in message.text, "the task that fails is named"
        (link,) = re.findall(r"<(http[^|>]+/dags/three_in_ten/runs/[^|>]+)\|Run>", message.text)
        assert any(httpx.URL(link).path.endswith(f"/{run}") for run in failed), link
        assert httpx.get(link, follow_redirects=True).status_code == httpx.codes.OK
        assert "AirflowDagRunsFailing.md|Runbook" in message.text

        api.http.post("/api/v2/variables", json={"key": "tests_fixed", "value": "yes"}).raise_for_status()
        for run in failed:
            body = {"dry_run": False, "only_failed": True}
            api.http.post(f"/api/v2/dags/three_in_ten/dagRuns/{run}/clear", json=body).raise_for_status()
            assert api.wait_for_run("three_in_ten", run, timeout=60) == "success"
        wait_until(
            lambda: messages(firing=False),
            timeout=RESOLVED_SECONDS,
            what="the resolved message is in Slack",
            interval=2,
        )
        assert len(messages(firing=True)) == 1
    finally:
        alertmanager.start()


def test_the_watchdog_calls_the_dead_mans_switch_every_minute(healthy_stack: Stack):
    """Run before the tests in which Slack fails: NotificationsFail stops the calls."""

    def calls() -> bool:
        count, seconds = healthy_stack.slack.presses()
        return count >= 2 and seconds < CALL_SECONDS

    wait_until(calls, timeout=150, what="the Watchdog has called again", interval=2)


def test_a_silenced_alert_sends_nothing_and_shows_its_reason(healthy_stack: Stack):
    result = healthy_stack.command("silence", "AirflowImportErrors", "--for", "10m", "--why", "the tests break a file")
    broken = healthy_stack.dags / "broken_dag.py"
    since = time.time()
    broken.write_text("from airflow.sdk import dag\nraise RuntimeError('meant to fail')\n")
    broken.chmod(0o644)
    try:
        wait_until(
            lambda: healthy_stack.api.get("/importErrors")["import_errors"], timeout=MINUTE, what="the file is read"
        )
        healthy_stack.api.trigger("monitoring_dag")

        def shown() -> str:
            text = healthy_stack.command("alerts").stdout
            return text if re.search(r"AirflowImportErrors.*silenced", text) else ""

        text = wait_until(shown, timeout=FINDING_SECONDS, what="the import error is a silenced alert", interval=3)
        assert "the tests break a file" in text
        for alertmanager in healthy_stack.alertmanagers:
            reasons = [silence["why"] for silence in alertmanager.silences()]
            assert "the tests break a file" in reasons, f"{alertmanager.url} does not know the silence"
        assert healthy_stack.slack.received(since, "AirflowImportErrors", firing=True) == []
    finally:
        broken.unlink()
        identity = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", result.stdout)
        assert identity, result.stdout
        healthy_stack.command("silence", "--end", identity[0])
        wait_until(
            lambda: not healthy_stack.api.get("/importErrors")["import_errors"],
            timeout=MINUTE,
            what="the broken file is forgotten",
        )


def test_every_rule_is_loaded_and_none_fails(healthy_stack: Stack):
    rules = healthy_stack.prometheus.rules()
    assert {rule["name"] for rule in rules} >= {"PostgresDown", "AirflowComponentGone", "Watchdog", "Aftermath"}
    assert {rule["name"]: rule["error"] for rule in rules if rule["health"] != "ok"} == {}


def test_postgres_outage_sends_one_message_within_a_minute(healthy_stack: Stack):
    """Run after the silenced alert: alerts that depend on Postgres stay inhibited for some minutes."""
    assert_alert_drill_passes(healthy_stack, "postgres")


# Alertmanager's own tests in tests/images have all of them in every run.
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500, "times": 2}, id="status 500"),
        pytest.param({"status": 429, "times": 2}, id="status 429", marks=pytest.mark.nightly),
        pytest.param({"hang_seconds": 8, "times": 1}, id="hangs", marks=pytest.mark.nightly),
    ],
)
def test_a_message_arrives_though_slack_fails_at_first(healthy_stack: Stack, fault: dict[str, int]):
    """Run last: for five minutes more, NotificationsFail may fire, which the drill of Postgres does not expect."""
    since = time.time()
    with healthy_stack.slack.failing(**fault):
        healthy_stack.command("slack", "--test", check=False)
        wait_until(
            lambda: healthy_stack.slack.received(since, "SlackTest", firing=True),
            timeout=MINUTE,
            what="the test message is in Slack",
        )
