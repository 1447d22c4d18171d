"""Alerts have stable labels, expire late and are resolved explicitly."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.alerts import INTERVAL, RESOLVED_RETENTION, alerts_to_keep, alerts_to_send, payload
from airflow_ha.monitoring.check_state import SentAlert
from airflow_ha.monitoring.findings import Finding
from tests.unit.monitoring.conftest import NOON

A, B = "http://alertmanager-1:9093", "http://alertmanager-2:9093"
BOTH = [A, B]
MINUTE = timedelta(minutes=1)


def finding(dag_id="etl", run="r1"):
    return Finding(
        findings.DAG_RUNS_FAILING, "data", f"{dag_id} fails", "It does.", "airflow-dags-and-tasks",
        {"dag_id": dag_id}, f"/dags/{dag_id}/runs/{run}",
    )  # fmt: skip


def ends(alert):
    return datetime.fromisoformat(alert["endsAt"])


def test_alert_has_the_common_labels_and_annotations():
    (alert,) = payload(alerts_to_send([finding()], [], BOTH, NOON), A, [], NOON)
    assert alert["labels"] == {
        "alertname": "AirflowDagRunsFailing",
        "severity": "ticket",
        "team": "data",
        "source": "monitoring_dag",
        "depends_on": "postgres, redis, gateway, task-execution",
        "dag_id": "etl",
    }
    assert alert["annotations"] == {
        "summary": "etl fails",
        "description": "It does.",
        "runbook_url": "alerting/runbooks/AirflowDagRunsFailing.md",
        "dashboard_url": "/d/airflow-dags-and-tasks",
        "run_url": "/dags/etl/runs/r1",
    }


def test_finding_without_a_page_has_no_run_url():
    bare = Finding(findings.WORKERS_FULL, "platform", "s", "d", "airflow-overview")
    (alert,) = payload(alerts_to_send([bare], [], BOTH, NOON), A, [], NOON)
    assert "run_url" not in alert["annotations"]


def test_labels_and_start_stay_while_the_failed_run_changes():
    first = alerts_to_keep(alerts_to_send([finding(run="r1")], [], BOTH, NOON), BOTH)
    second = alerts_to_send([finding(run="r2")], first, BOTH, NOON + MINUTE)
    (before,), (after,) = payload(first, A, [], NOON), payload(second, A, [], NOON + MINUTE)
    assert before["labels"] == after["labels"]
    assert after["startsAt"] == before["startsAt"] == NOON.isoformat()
    assert after["annotations"]["run_url"] == "/dags/etl/runs/r2"


def test_alert_outlives_the_last_check_by_four_intervals():
    (alert,) = payload(alerts_to_send([finding()], [], BOTH, NOON), A, [], NOON)
    assert ends(alert) - NOON >= 4 * INTERVAL


def test_missing_finding_is_resolved_at_both_and_then_dropped():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), BOTH)
    later = alerts_to_send([], alerts, BOTH, NOON + MINUTE)
    for url in BOTH:
        (alert,) = payload(later, url, [], NOON + MINUTE)
        assert ends(alert) == NOON + MINUTE
        assert alert["labels"]["dag_id"] == "etl"
    assert alerts_to_keep(later, BOTH) == ()


def test_end_is_kept_for_an_unreachable_alertmanager_only():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), BOTH)
    alerts = alerts_to_keep(alerts_to_send([], alerts, BOTH, NOON + MINUTE), [A])
    later = alerts_to_send([], alerts, BOTH, NOON + 9 * MINUTE)
    assert payload(later, A, [], NOON + 9 * MINUTE) == []
    (alert,) = payload(later, B, [], NOON + 9 * MINUTE)
    assert ends(alert) == NOON + MINUTE, "it ended when it was first not found"
    assert alerts_to_keep(later, [B]) == ()


def test_end_is_kept_while_both_are_unreachable():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), [])
    for minute in range(1, 30):
        alerts = alerts_to_keep(alerts_to_send([], alerts, BOTH, NOON + minute * MINUTE), [])
    assert [each.pending for each in alerts] == [frozenset(BOTH)]


def test_alert_after_an_outage_of_both_keeps_its_start():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), [])
    later = alerts_to_send([finding()], alerts, BOTH, NOON + 9 * MINUTE)
    (alert,) = payload(later, B, [], NOON + 9 * MINUTE)
    assert alert["startsAt"] == NOON.isoformat()
    assert ends(alert) > NOON + 9 * MINUTE


def test_undelivered_end_is_dropped_after_a_day():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), [])
    alerts = alerts_to_keep(alerts_to_send([], alerts, BOTH, NOON + MINUTE), [])
    assert len(alerts_to_send([], alerts, BOTH, NOON + RESOLVED_RETENTION)) == 1
    assert alerts_to_send([], alerts, BOTH, NOON + MINUTE + RESOLVED_RETENTION) == []


def test_end_is_not_kept_for_a_removed_alertmanager():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), BOTH)
    alerts = alerts_to_keep(alerts_to_send([], alerts, BOTH, NOON + MINUTE), [A])
    assert alerts_to_send([], alerts, [A], NOON + 2 * MINUTE) == []


def test_without_alertmanagers_ended_alerts_are_dropped():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], [], NOON), [])
    assert len(alerts) == 1
    assert alerts_to_send([], alerts, [], NOON + MINUTE) == []


def test_finding_that_returns_starts_a_new_alert():
    alerts = alerts_to_keep(alerts_to_send([finding()], [], BOTH, NOON), BOTH)
    alerts = alerts_to_keep(alerts_to_send([], alerts, BOTH, NOON + MINUTE), [A])
    (again,) = alerts_to_send([finding()], alerts, BOTH, NOON + 2 * MINUTE)
    assert (again.starts_at, again.ended_at) == (NOON + 2 * MINUTE, None)


def test_stray_alert_of_an_alertmanager_is_resolved():
    stray = SentAlert({"alertname": "Old", "source": "monitoring_dag"}, {"summary": "s"}, NOON - MINUTE)
    alerts = alerts_to_send([finding()], [], BOTH, NOON)
    alive, old = payload(alerts, A, [stray, *alerts], NOON)
    assert ends(alive) > NOON
    assert (old["labels"]["alertname"], ends(old)) == ("Old", NOON)
    assert old["annotations"] == {"summary": "s"}


def test_end_is_never_before_start_with_clock_skew():
    stray = SentAlert({"alertname": "Old"}, {}, NOON + MINUTE)
    (alert,) = payload([], A, [stray], NOON)
    assert alert["startsAt"] <= alert["endsAt"]
