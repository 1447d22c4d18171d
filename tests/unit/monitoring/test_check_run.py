"""A whole check: what it tells, measures and remembers, also when somebody is away."""

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
from airflow_ha.monitoring.airflow_api import AirflowApiError
from airflow_ha.monitoring.alertmanager_client import AlertmanagersAwayError, Delivery
from airflow_ha.monitoring.alerts import taken
from airflow_ha.monitoring.observations import DueDag, ImportProblem, Observations, Runs
from tests.unit.monitoring.conftest import NOON, SLOTS, ago

A, B = "http://a:9093", "http://b:9093"
BROKEN = {"import_problems": (ImportProblem("x.py", "NameError: y"),)}


class World:
    """Airflow, its Variables, the Alertmanagers and Prometheus."""

    def __init__(self):
        self.now = NOON
        self.sees = {}
        self.airflow_is_away = False
        self.variables, self.writes = {}, 0
        self.alertmanagers, self.away = [A, B], set()
        self.told, self.measured = [], {}

    def look(self, limits, at):
        if self.airflow_is_away:
            raise AirflowApiError("away")
        return Observations(at=at, **self.sees)

    def tell(self, told, urls, at):
        self.told = list(told)
        heard = [url for url in urls if url not in self.away]
        return Delivery(taken(self.told, heard), dict.fromkeys(self.away & set(urls), "away"), len(heard))

    def write(self, name, text):
        self.variables[name] = text
        self.writes += 1

    def record(self, measurements):
        self.measured = {(each.name, *each.attributes.values()): each.value for each in measurements}

    def check(self):
        try:
            return check_run.check(
                self.look,
                alertmanagers=self.alertmanagers,
                get_variable=self.variables.get,
                set_variable=self.write,
                slots=SLOTS,
                record=self.record,
                tell=self.tell,
                now=lambda: self.now,
            )
        finally:
            self.now += timedelta(minutes=1)


@pytest.fixture
def world():
    return World()


def test_a_quiet_check_tells_nothing_writes_nothing_and_says_that_it_was_made(world, caplog):
    caplog.set_level("INFO")
    assert world.check() == {}
    assert (world.told, world.writes) == ([], 0)
    assert world.measured[(gauges.LAST_SUCCESS,)] == NOON.timestamp()
    assert world.measured[(gauges.OLDEST_QUEUED,)] == 0
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 0
    assert "findings=0 alertmanagers=2 of 2" in caplog.text


def test_a_finding_is_told_logged_measured_returned_and_its_end_told_once(world, caplog):
    world.sees = BROKEN
    assert world.check() == {findings.IMPORT_ERRORS: 1}
    assert "finding AirflowImportErrors {'file': 'x.py'}: x.py does not import" in caplog.text
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 1
    world.sees = {}
    assert world.check() == {}
    assert [told.ended_at for told in world.told] == [NOON + timedelta(minutes=1)]
    world.check()
    assert world.told == []


def test_what_stays_the_same_is_not_written_anew(world):
    world.sees = BROKEN
    world.check()
    world.check()
    assert world.writes == 1


def test_nobody_there_fails_the_check_after_it_remembered_and_measured_all_but_that_it_was_made(world):
    world.sees = BROKEN
    world.away = {A, B}
    with pytest.raises(AlertmanagersAwayError):
        world.check()
    assert check_state.load(world.variables[check_state.VARIABLE]).told
    assert world.measured[(gauges.FINDINGS, findings.IMPORT_ERRORS)] == 1
    assert (gauges.LAST_SUCCESS,) not in world.measured


def test_one_there_is_enough(world):
    world.sees = BROKEN
    world.away = {A}
    assert world.check()
    assert (gauges.LAST_SUCCESS,) in world.measured


def test_without_alertmanagers_it_measures_and_is_complete(world):
    world.sees = BROKEN
    world.alertmanagers = []
    assert world.check()
    assert (gauges.LAST_SUCCESS,) in world.measured


def test_while_airflow_cannot_be_seen_nothing_is_resolved_and_nothing_measured(world):
    world.sees = BROKEN
    world.check()
    world.airflow_is_away, world.measured = True, {}
    with pytest.raises(AirflowApiError):
        world.check()
    assert [(told.labels["file"], told.ended_at) for told in world.told] == [("x.py", None)]
    assert world.measured == {}


def test_while_airflow_cannot_be_seen_and_nothing_was_found_nobody_is_told(world):
    world.airflow_is_away, world.told = True, ["untouched"]
    with pytest.raises(AirflowApiError):
        world.check()
    assert world.told == ["untouched"]


def test_a_bad_variable_is_a_finding_and_its_default_goes_on(world, caplog):
    world.variables["monitoring_failure_rate"] = "20%"
    world.sees = {"all_runs": Runs(7, 3)}
    assert world.check() == {findings.FAILURE_RATE_HIGH: 1, findings.MISCONFIGURED: 1}
    assert "monitoring_failure_rate is '20%'; it must be a number from 0 to 1" in caplog.text


def test_what_lasts_is_remembered_from_check_to_check(world):
    world.sees = {"due": (DueDag("etl", ago(9000)),)}
    assert world.check() == {}
    assert world.check() == {findings.DAG_OVERDUE: 1}


def test_what_could_not_be_read_to_its_end_is_said(world, caplog):
    world.sees = {"cut": ("/pools",)}
    world.check()
    assert "/pools has more entries than a check reads" in caplog.text


def test_every_dag_is_measured(world):
    world.sees = {
        "all_runs": Runs(9, 1),
        "runs": {"etl": Runs(1, 1)},
        "well": frozenset({"fine"}),
        "due": (DueDag("etl", ago(90)), DueDag("fine", ago(-90))),
    }
    world.check()
    world.check()
    assert world.measured[(gauges.FAILURE_RATIO,)] == 0.1
    assert world.measured[(gauges.DAG_FAILURE_RATIO, "etl")] == 0.5
    assert world.measured[(gauges.DAG_FAILURE_RATIO, "fine")] == 0
    assert world.measured[(gauges.DAG_OVERDUE, "etl")] == 150
    assert world.measured[(gauges.DAG_OVERDUE, "fine")] == 0


def test_a_dag_that_is_gone_is_measured_as_not_overdue_once(world):
    world.sees = {"due": (DueDag("etl", ago(9000)),)}
    world.check()
    world.check()
    world.sees = {}
    world.check()
    assert world.measured[(gauges.DAG_OVERDUE, "etl")] == 0
    world.check()
    assert (gauges.DAG_OVERDUE, "etl") not in world.measured


def test_in_a_task_it_takes_connection_variables_slots_and_alertmanagers_from_airflow(monkeypatch, tmp_path):
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
    measured, told = [], []
    monkeypatch.setattr(otel, "record_gauges", measured.extend)
    monkeypatch.setattr(check_run, "observe", lambda api, limits, at: Observations(at=at, **BROKEN))
    monkeypatch.setattr(
        check_run, "deliver", lambda alerts, urls, at: told.append(urls) or Delivery(taken(alerts, urls), {}, len(urls))
    )
    assert check_run.check_airflow() == {findings.IMPORT_ERRORS: 1}
    assert told == [[A, B]]
    assert list(written) == [check_state.VARIABLE]
    assert gauges.LAST_SUCCESS in {each.name for each in measured}
