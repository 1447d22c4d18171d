"""When maintenance runs, and which limits it accepts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ha.maintenance import __main__ as maintenance
from airflow_ha.maintenance import retention
from airflow_ha.maintenance.pace import Pace
from airflow_ha.maintenance.removal import Removal
from airflow_ha.setting_error import SettingError
from airflow_ha.sizes import GIB
from tests.unit.compose.model import compose_model

ENVIRONMENT = {
    name: str(value)
    for name, value in compose_model()["services"]["maintenance"]["environment"].items()
    if name.startswith(("RETENTION_", "MAINTENANCE_"))
}
AT = datetime(2026, 11, 29, 4, 0, tzinfo=UTC)


def test_the_defaults_of_compose_are_valid():
    kept = retention.read(ENVIRONMENT)
    assert (kept.hour, kept.logs_bytes, kept.disk_percent) == (4, 20 * GIB, 85)


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
@pytest.mark.parametrize("value", ["", "-1", "ten", "1.5"])
def test_a_misread_limit_removes_nothing(name, value):
    with pytest.raises(SettingError, match=name):
        retention.read(ENVIRONMENT | {name: value})


@pytest.mark.parametrize(
    ("now", "succeeded", "is_due"),
    [
        (AT, None, True),
        (AT, AT - timedelta(hours=24), True),
        (AT - timedelta(minutes=1), AT - timedelta(hours=24), False),
        (AT + timedelta(hours=5), AT + timedelta(minutes=9), False),
        (AT + timedelta(hours=5), AT - timedelta(minutes=9), True),  # it was down at four
        (AT + timedelta(hours=5), AT - timedelta(days=30), True),
    ],
)
def test_a_run_is_due_once_a_day_from_its_hour_on(now, succeeded, is_due):
    assert maintenance.is_due(now, succeeded, 4) is is_due


def test_maintenance_rests_twice_as_long_as_it_works(tmp_path, monkeypatch):
    clock, slept = [100.0], []
    monkeypatch.setattr("airflow_ha.maintenance.pace.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("airflow_ha.maintenance.pace.time.sleep", slept.append)
    pace = Pace(tmp_path / "alive")
    clock[0] += 0.05
    pace.rest()
    assert (slept, (tmp_path / "alive").exists()) == ([], False)
    clock[0] += 0.45
    pace.rest()
    assert slept == [pytest.approx(1.0)]
    assert (tmp_path / "alive").exists()


def test_a_removal_reads_as_a_line():
    assert str(Removal("dag_versions", 1234)) == "dag versions: 1,234"
    assert str(Removal("logs", 2, 3 * GIB)) == "logs: 2 (3.0 GiB)"


def test_a_command_that_is_unknown_explains_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(maintenance, "SECRETS", tmp_path)
    for name in ("sql_alchemy_conn", "celery_results_owner"):
        (tmp_path / name).write_text("postgresql+psycopg2://a:b@127.0.0.1:1/c")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="serve"):
        maintenance.main(["server"])
