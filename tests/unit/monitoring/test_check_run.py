"""A complete check: its alerts, gauges and stored state, also while Airflow or an Alertmanager is unreachable."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from airflow_ha.monitoring import (
    check_run,
    check_state,
    findings,
    gauges,
)
from airflow_ha.monitoring.airflow_api import Account, AirflowApiError, LogInRefusedError
from airflow_ha.monitoring.alertmanager_client import AlertmanagersUnreachableError, Delivery
from airflow_ha.monitoring.alerts import alerts_to_keep
from airflow_ha.monitoring.observations import DueDag, ImportProblem, Observations, Runs
from tests.unit.monitoring.conftest import NOON, SLOTS, ago

A, B = "http://a:9093", "http://b:9093"
BROKEN = {"import_problems": (ImportProblem("x.py", "NameError: y"),)}


class World:
    """Fakes of Airflow, its Variables, the Alertmanagers and Prometheus."""

    def __init__(self):
        self.now = NOON
        self.values = {}
        self.airflow_fails = False
        self.variables, self.writes = {}, 0
        self.alertmanagers, self.unreachable = [A, B], set()
        self.alerts, self.measured = [], {}

    def observe(self, limits, at):
        if self.airflow_fails:
            raise AirflowApiError("refused")
        return Observations(at=at, **self.values)

    def send(self, alerts, urls, at):
        self.alerts = list(alerts)
        reached = [url for url in urls if url not in self.unreachable]
        failed = dict.fromkeys(self.unreachable & set(urls), "refused")
        return Delivery(alerts_to_keep(self.alerts, reached), failed, len(reached))

    def write(self, name, text):
        self.variables[name] = text
        self.writes += 1

    def record(self, measurements):
        self.measured = {(each.name, *each.attributes.values()): each.value for each in measurements}

    def check(self):
        try:
            ports = check_run.Ports(
                observe=self.observe,
                get_variable=self.variables.get,
                set_variable=self.write,
                record=self.record,
                send=self.send,
                now=lambda: self.now,
            )
            return check_run.check(ports, alertmanagers=self.alertmanagers, slots=SLOTS)
        finally:
            self.now += timedelta(minutes=1)


@pytest.fixture
def world():
    return World()


def test_check_without_findings_writes_only_its_gauges(world, caplog):
    caplog.set_level("INFO")
    assert world.check() == {}
    assert (world.alerts, world.writes) == ([], 0)
    assert world.measured[(gauges.LAST_SUCCESS,)] == NOON.timestamp()
    assert world.measured[(gauges.OLDEST_QUEUED,)] == 0
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 0
    assert "findings=0 alertmanagers=2 of 2" in caplog.text


def test_finding_is_sent_logged_and_exported_and_resolved_once(world, caplog):
    world.values = BROKEN
    assert world.check() == {findings.IMPORT_ERRORS: 1}
    assert "finding AirflowImportErrors {'file': 'x.py'}" in caplog.text
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 1
    world.values = {}
    assert world.check() == {}
    assert [alert.ended_at for alert in world.alerts] == [NOON + timedelta(minutes=1)]
    world.check()
    assert world.alerts == []


def test_unchanged_state_is_not_written_again(world):
    world.values = BROKEN
    world.check()
    world.check()
    assert world.writes == 1


def test_no_alertmanager_reached_fails_but_stores_the_state(world):
    world.values = BROKEN
    world.unreachable = {A, B}
    with pytest.raises(AlertmanagersUnreachableError):
        world.check()
    assert check_state.load(world.variables[check_state.VARIABLE]).alerts
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 1
    assert (gauges.LAST_SUCCESS,) not in world.measured


def test_one_reachable_alertmanager_is_enough(world):
    world.values = BROKEN
    world.unreachable = {A}
    assert world.check()
    assert (gauges.LAST_SUCCESS,) in world.measured


def test_check_without_alertmanagers_is_complete(world):
    world.values = BROKEN
    world.alertmanagers = []
    assert world.check()
    assert (gauges.LAST_SUCCESS,) in world.measured


def test_unreachable_airflow_resolves_and_exports_nothing(world):
    world.values = BROKEN
    world.check()
    world.airflow_fails, world.measured = True, {}
    with pytest.raises(AirflowApiError):
        world.check()
    assert [(alert.labels["file"], alert.ended_at) for alert in world.alerts] == [("x.py", None)]
    assert world.measured == {}


def test_unreachable_airflow_without_alerts_sends_nothing(world):
    world.airflow_fails, world.alerts = True, ["untouched"]
    with pytest.raises(AirflowApiError):
        world.check()
    assert world.alerts == ["untouched"]


def test_invalid_variable_is_a_finding_and_its_default_applies(world, caplog):
    world.variables["monitoring_failure_rate"] = "20%"
    world.values = {"all_runs": Runs(7, 3)}
    assert world.check() == {findings.FAILURE_RATE_HIGH: 1, findings.MISCONFIGURED: 1}
    assert "monitoring_failure_rate: '20%'" in caplog.text


def test_conditions_last_from_check_to_check(world):
    world.values = {"due": (DueDag("etl", ago(9000)),)}
    assert world.check() == {}
    assert world.check() == {findings.DAG_OVERDUE: 1}


def test_truncated_list_is_logged(world, caplog):
    world.values = {"truncated": ("/pools",)}
    world.check()
    assert "/pools" in caplog.text


def test_every_dag_has_gauges(world):
    world.values = {
        "all_runs": Runs(9, 1),
        "runs": {"etl": Runs(1, 1)},
        "healthy_dags": frozenset({"fine"}),
        "due": (DueDag("etl", ago(90)), DueDag("fine", ago(-90))),
    }
    world.check()
    world.check()
    assert world.measured[(gauges.FAILURE_RATIO,)] == 0.1
    assert world.measured[(gauges.DAG_FAILURE_RATIO, "etl")] == 0.5
    assert world.measured[(gauges.DAG_FAILURE_RATIO, "fine")] == 0
    assert world.measured[(gauges.DAG_OVERDUE, "etl")] == 150
    assert world.measured[(gauges.DAG_OVERDUE, "fine")] == 0


def test_removed_dag_is_exported_once_as_not_overdue(world):
    world.values = {"due": (DueDag("etl", ago(9000)),)}
    world.check()
    world.check()
    world.values = {}
    world.check()
    assert world.measured[(gauges.DAG_OVERDUE, "etl")] == 0
    world.check()
    assert (gauges.DAG_OVERDUE, "etl") not in world.measured


def test_task_reads_connection_variables_and_slots_from_airflow(monkeypatch, tmp_path):
    import airflow.sdk

    from airflow_ha.telemetry import otel

    account = SimpleNamespace(schema=None, host="gateway", port=8080, login="monitoring", password="p")
    monkeypatch.setattr(airflow.sdk.Connection, "get", lambda name: {"airflow_api": account}[name])
    monkeypatch.setattr(airflow.sdk.Variable, "get", lambda name, default: default)
    written = {}
    monkeypatch.setattr(airflow.sdk.Variable, "set", lambda name, text, description: written.update({name: text}))
    monkeypatch.setenv("AIRFLOW__CELERY__WORKER_CONCURRENCY", "3")
    monkeypatch.setenv(check_run.ALERTMANAGERS, f"{A},{B}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    measured, sent_to = [], []
    monkeypatch.setattr(otel, "record_gauges", measured.extend)
    monkeypatch.setattr(check_run, "observe", lambda api, limits, at: Observations(at=at, **BROKEN))
    monkeypatch.setattr(
        check_run,
        "deliver",
        lambda alerts, urls, at, log_in: (
            sent_to.append((urls, log_in)) or Delivery(alerts_to_keep(alerts, urls), {}, len(urls))
        ),
    )
    assert check_run.check_airflow() == {findings.IMPORT_ERRORS: 1}
    assert sent_to == [([A, B], ("monitoring", "p"))]
    assert list(written) == [check_state.VARIABLE]
    assert gauges.LAST_SUCCESS in {each.name for each in measured}


def test_account_that_changes_during_a_rotation_is_read_again(monkeypatch):
    monkeypatch.setattr(check_run, "ROTATED_SECONDS", 0.0)
    connections = ["old", "old", "new"]
    tried: list[str] = []

    def run(account: Account) -> dict[str, int]:
        tried.append(account.password)
        if account.password == "old":
            raise LogInRefusedError
        return {"Finding": 1}

    def account() -> Account:
        return Account("http://gateway:8080", "monitoring", connections.pop(0))

    assert check_run.with_current_account(account, run) == {"Finding": 1}
    assert tried == ["old", "old", "new"]


def test_log_in_that_stays_refused_ends_the_check(monkeypatch):
    monkeypatch.setattr(check_run, "ROTATED_SECONDS", 0.0)

    def run(_: Account) -> dict[str, int]:
        raise LogInRefusedError

    with pytest.raises(LogInRefusedError):
        check_run.with_current_account(lambda: Account("http://gateway:8080", "monitoring", "x"), run)
