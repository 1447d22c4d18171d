"""Alerts with stable labels that end by themselves late, and by word at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.alerts import INTERVAL, KEPT, message, taken, to_tell
from airflow_ha.monitoring.check_state import Told
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


def test_an_alert_has_the_labels_and_annotations_of_every_alert_and_its_source():
    (alert,) = message(to_tell([finding()], [], BOTH, NOON), A, [], NOON)
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


def test_what_has_no_page_has_no_link_to_one():
    bare = Finding(findings.WORKERS_FULL, "platform", "s", "d", "airflow-overview")
    (alert,) = message(to_tell([bare], [], BOTH, NOON), A, [], NOON)
    assert "run_url" not in alert["annotations"]


def test_its_labels_and_its_start_stay_while_the_latest_failed_run_is_another_each_time():
    first = taken(to_tell([finding(run="r1")], [], BOTH, NOON), BOTH)
    second = to_tell([finding(run="r2")], first, BOTH, NOON + MINUTE)
    (before,), (after,) = message(first, A, [], NOON), message(second, A, [], NOON + MINUTE)
    assert before["labels"] == after["labels"]
    assert after["startsAt"] == before["startsAt"] == NOON.isoformat()
    assert after["annotations"]["run_url"] == "/dags/etl/runs/r2"


def test_it_lasts_for_at_least_four_intervals_after_the_last_check_that_found_it():
    (alert,) = message(to_tell([finding()], [], BOTH, NOON), A, [], NOON)
    assert ends(alert) - NOON >= 4 * INTERVAL


def test_a_finding_that_is_gone_is_resolved_explicitly_at_both_and_then_forgotten():
    told = taken(to_tell([finding()], [], BOTH, NOON), BOTH)
    later = to_tell([], told, BOTH, NOON + MINUTE)
    for url in BOTH:
        (alert,) = message(later, url, [], NOON + MINUTE)
        assert ends(alert) == NOON + MINUTE
        assert alert["labels"]["dag_id"] == "etl"
    assert taken(later, BOTH) == ()


def test_an_end_is_kept_for_the_one_that_was_away_and_told_to_it_alone_when_it_is_back():
    told = taken(to_tell([finding()], [], BOTH, NOON), BOTH)
    told = taken(to_tell([], told, BOTH, NOON + MINUTE), [A])
    later = to_tell([], told, BOTH, NOON + 9 * MINUTE)
    assert message(later, A, [], NOON + 9 * MINUTE) == []
    (alert,) = message(later, B, [], NOON + 9 * MINUTE)
    assert ends(alert) == NOON + MINUTE, "it ended when it was first not found"
    assert taken(later, [B]) == ()


def test_an_end_is_kept_while_both_are_away():
    told = taken(to_tell([finding()], [], BOTH, NOON), [])
    for minute in range(1, 30):
        told = taken(to_tell([], told, BOTH, NOON + minute * MINUTE), [])
    assert [each.pending for each in told] == [frozenset(BOTH)]


def test_what_is_found_while_both_are_away_is_told_when_they_are_back_since_when_it_was_found():
    told = taken(to_tell([finding()], [], BOTH, NOON), [])
    later = to_tell([finding()], told, BOTH, NOON + 9 * MINUTE)
    (alert,) = message(later, B, [], NOON + 9 * MINUTE)
    assert alert["startsAt"] == NOON.isoformat()
    assert ends(alert) > NOON + 9 * MINUTE


def test_an_end_that_nobody_takes_for_a_day_is_given_up():
    told = taken(to_tell([finding()], [], BOTH, NOON), [])
    told = taken(to_tell([], told, BOTH, NOON + MINUTE), [])
    assert len(to_tell([], told, BOTH, NOON + KEPT)) == 1
    assert to_tell([], told, BOTH, NOON + MINUTE + KEPT) == []


def test_an_end_is_not_kept_for_an_alertmanager_that_was_taken_away():
    told = taken(to_tell([finding()], [], BOTH, NOON), BOTH)
    told = taken(to_tell([], told, BOTH, NOON + MINUTE), [A])
    assert to_tell([], told, [A], NOON + 2 * MINUTE) == []


def test_without_alertmanagers_what_is_over_is_forgotten_at_once():
    told = taken(to_tell([finding()], [], [], NOON), [])
    assert len(told) == 1
    assert to_tell([], told, [], NOON + MINUTE) == []


def test_a_finding_that_comes_back_while_its_end_is_still_kept_starts_anew():
    told = taken(to_tell([finding()], [], BOTH, NOON), BOTH)
    told = taken(to_tell([], told, BOTH, NOON + MINUTE), [A])
    (again,) = to_tell([finding()], told, BOTH, NOON + 2 * MINUTE)
    assert (again.starts_at, again.ended_at) == (NOON + 2 * MINUTE, None)


def test_what_an_alertmanager_holds_of_ours_and_nobody_speaks_of_is_resolved():
    stray = Told({"alertname": "Old", "source": "monitoring_dag"}, {"summary": "s"}, NOON - MINUTE)
    told = to_tell([finding()], [], BOTH, NOON)
    alive, old = message(told, A, [stray, *told], NOON)
    assert ends(alive) > NOON
    assert (old["labels"]["alertname"], ends(old)) == ("Old", NOON)
    assert old["annotations"] == {"summary": "s"}


def test_an_end_is_never_before_its_start_whatever_another_machines_clock_says():
    stray = Told({"alertname": "Old"}, {}, NOON + MINUTE)
    (alert,) = message([], A, [stray], NOON)
    assert alert["startsAt"] <= alert["endsAt"]
