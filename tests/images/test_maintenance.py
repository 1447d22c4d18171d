"""Maintenance in a real Postgres with Airflow's schema: what goes, and what stays at any age."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, text

from airflow_ha.maintenance import __main__ as maintenance
from airflow_ha.maintenance import record, rows, work
from airflow_ha.maintenance.pace import Pace
from airflow_ha.maintenance.removal import Removal
from tests.docker_session import session_name
from tests.images.conftest import ROOT, docker
from tests.images.test_data_images import DATABASE_USER, wait_for
from tests.retention_limits import LIMITS

NOW = datetime.now(UTC)
RESULTS = """
CREATE SCHEMA results;
CREATE TABLE results.celery_taskmeta (task_id text PRIMARY KEY, date_done timestamp NOT NULL);
"""
DAG = text(
    "INSERT INTO dag (dag_id, bundle_name, timetable_type, max_active_tasks, max_consecutive_failed_dag_runs,"
    " has_task_concurrency_limits, is_paused, is_stale, partition_mapper_info)"
    " VALUES (:dag_id, 'dags', '', 16, 0, false, false, false, '{}')"
)
RUN = text(
    "INSERT INTO dag_run (dag_id, run_id, run_type, state, start_date, end_date, run_after, logical_date)"
    " VALUES (:dag_id, :run_id, :run_type, :state, :at, :end, :at, :logical_date) RETURNING id"
)
TASK = text(
    "INSERT INTO task_instance (id, dag_id, run_id, task_id, state, try_number, pool, pool_slots, start_date,"
    " trigger_id, dag_version_id)"
    " VALUES (:id, :dag_id, :run_id, :task_id, :state, 1, 'default_pool', 1, :at, :trigger_id, :dag_version_id)"
)
XCOM = text(
    "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, key, timestamp)"
    " VALUES (:number, :dag_id, :run_id, :task_id, 'return_value', :at)"
)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.fixture(scope="module")
def server(images, tmp_path_factory):
    """A Postgres whose database `template` has Airflow's schema; returns the URL of a database."""
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    started = docker(
        *("run", "--detach", "--name", name, "--publish", "127.0.0.1::5432", "--user", DATABASE_USER),
        *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775", "--tmpfs", "/var/lib/postgresql/data:uid=999"),
        *("--env", "POSTGRES_PASSWORD=postgres", images["POSTGRES_IMAGE"].reference, "-c", "fsync=off"),
    )
    assert started.status == 0, started.output
    try:
        wait_for(name, "pg_isready", "-q", "-h", "127.0.0.1")
        port = docker("port", name, "5432").output.strip().rpartition(":")[2]
        address = f"postgres:postgres@127.0.0.1:{port}"
        with create_engine(f"postgresql+psycopg2://{address}/postgres", isolation_level="AUTOCOMMIT").connect() as root:
            root.exec_driver_sql("CREATE DATABASE template")
        migrate(address, str(tmp_path_factory.mktemp("airflow")))
        yield lambda database: f"postgresql+psycopg2://{address}/{database}"
    finally:
        docker("rm", "--force", "--volumes", name)


def migrate(address: str, home: str) -> None:
    """Create Airflow's schema in a process of its own: the tests' Airflow has another database."""
    environment = os.environ | {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{address}/template",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg_async://{address}/template",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def places(server, tmp_path):
    """New databases, and empty folders."""
    number = uuid.uuid4().hex[:8]
    with create_engine(server("postgres"), isolation_level="AUTOCOMMIT").connect() as root:
        root.exec_driver_sql(f"CREATE DATABASE d{number} TEMPLATE template")
        root.exec_driver_sql(f"CREATE DATABASE r{number}")
    engines = rows.connect(server(f"d{number}")), rows.connect("db+" + server(f"r{number}"))
    with engines[1].begin() as connection:
        connection.exec_driver_sql(RESULTS)
    with engines[0].begin() as connection:
        connection.exec_driver_sql("INSERT INTO dag_bundle (name) VALUES ('dags')")
        for dag_id in ("sales", "canary"):
            connection.execute(DAG, {"dag_id": dag_id})
        connection.exec_driver_sql("INSERT INTO dag_tag (name, dag_id) VALUES ('monitoring', 'canary')")
    for folder in ("logs", "artifacts"):
        (tmp_path / folder).mkdir()
    yield work.Places(*engines, logs=tmp_path / "logs", artifacts=tmp_path / "artifacts")
    for engine in engines:
        engine.dispose()


@pytest.fixture
def pace(tmp_path) -> Pace:
    return Pace(tmp_path / "alive")


def add_run(engine, run_id: str, days: float, **values) -> int:
    """Insert a run that began and ended so many days ago, with one task that has an XCom; return its number."""
    run = {"dag_id": "sales", "run_id": run_id, "run_type": "manual", "state": "success", "at": ago(days)}
    run |= {"end": None if values.get("state") in ("queued", "running") else ago(days), "logical_date": None}
    task = {"id": uuid.uuid4(), "task_id": "t", "state": "success", "trigger_id": None, "dag_version_id": None}
    task |= values.pop("task", {})
    run |= values
    with engine.begin() as connection:
        number = connection.scalar(RUN, run)
        connection.execute(TASK, run | task)
        connection.execute(XCOM, run | task | {"number": number})
    return number


def runs(engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT run_id FROM dag_run")))


def count(engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608


def clean(places, pace, *, is_dry_run: bool = False) -> dict[str, int]:
    """Run maintenance, and return how many of each kind went."""
    results = list(work.remove(places, LIMITS, pace, is_dry_run=is_dry_run))
    assert all(isinstance(result, Removal) for result in results), results
    return {result.kind: result.number for result in results if result.number}


def test_old_runs_go_with_everything_that_belongs_to_them(places, pace):
    engine = places.metadata
    add_run(engine, "old", 91)
    add_run(engine, "failed", 91, state="failed", task={"state": None})
    add_run(engine, "new", 89)
    assert clean(places, pace, is_dry_run=True) == {"runs": 2}
    assert runs(engine) == {"old", "failed", "new"}
    assert clean(places, pace) == {"runs": 2}
    assert runs(engine) == {"new"}
    assert (count(engine, "task_instance"), count(engine, "xcom")) == (1, 1)
    assert clean(places, pace) == {}


def test_what_is_not_finished_stays_at_any_age(places, pace):
    engine = places.metadata
    with engine.begin() as connection:
        trigger = connection.scalar(
            text("INSERT INTO trigger (classpath, kwargs, created_date) VALUES ('t', '', :at) RETURNING id"),
            {"at": ago(200)},
        )
    add_run(engine, "running", 200, state="running", task={"state": "running"})
    add_run(engine, "queued", 200, state="queued", task={"state": None})
    add_run(engine, "deferred", 200, state="running", task={"state": "deferred", "trigger_id": trigger})
    add_run(engine, "ended-by-hand", 200, task={"state": "running"})
    assert clean(places, pace) == {}
    assert runs(engine) == {"running", "queued", "deferred", "ended-by-hand"}
    assert (count(engine, "trigger"), count(engine, "task_instance")) == (1, 4)


def test_the_runs_that_the_next_one_follows_from_stay(places, pace):
    """Airflow takes the last logical date; a backfill of older dates runs later."""
    engine = places.metadata
    for days in (103, 102, 101):
        add_run(engine, f"scheduled-{days}", days, run_type="scheduled", logical_date=ago(days))
    add_run(engine, "backfill", 95, run_type="backfill", logical_date=ago(300))
    add_run(engine, "manual", 94)
    assert clean(places, pace) == {"runs": 3}
    assert runs(engine) == {"scheduled-101", "backfill"}


def test_runs_and_logs_of_monitoring_dags_go_earlier(places, pace):
    for dag_id in ("canary", "sales"):
        add_run(places.metadata, dag_id, 8, dag_id=dag_id)
        log = places.logs / f"dag_id={dag_id}/run_id={dag_id}/task_id=t/attempt=1.log"
        log.parent.mkdir(parents=True)
        log.write_text("line")
        os.utime(log, (ago(8).timestamp(),) * 2)
    assert clean(places, pace) == {"monitoring_runs": 1, "logs": 1}
    assert runs(places.metadata) == {"sales"}
    assert [path.parts[-4] for path in places.logs.rglob("*.log")] == ["dag_id=sales"]


def test_logs_of_an_unfinished_run_stay(places, pace):
    add_run(places.metadata, "deferred", 200, state="running", task={"state": "deferred"})
    add_run(places.metadata, "old", 40)
    for run_id in ("deferred", "old"):
        log = places.logs / f"dag_id=sales/run_id={run_id}/task_id=t/attempt=1.log"
        log.parent.mkdir(parents=True)
        log.write_text("line")
        os.utime(log, (ago(40).timestamp(),) * 2)
    assert clean(places, pace) == {"logs": 1}
    assert [path.parts[-3] for path in places.logs.rglob("*.log")] == ["run_id=deferred"]


def test_asset_events_stay_while_a_run_needs_them(places, pace):
    engine = places.metadata
    kept = add_run(engine, "new", 1)
    with engine.begin() as connection:
        for number, name in enumerate(("due", "used", "unused"), start=1):
            connection.execute(
                text(
                    'INSERT INTO asset (id, name, uri, "group", extra, created_at, updated_at)'
                    " VALUES (:id, :name, :name, '', '{}', now(), now())"
                ),
                {"id": number, "name": name},
            )
            connection.execute(
                text("INSERT INTO asset_event (id, asset_id, extra, timestamp) VALUES (:id, :id, '{}', :at)"),
                {"id": number, "at": ago(100)},
            )
        connection.exec_driver_sql("INSERT INTO asset_dag_run_queue VALUES (1, 'sales', now())")
        connection.execute(
            text("INSERT INTO dagrun_asset_event (dag_run_id, event_id) VALUES (:run, 2)"), {"run": kept}
        )
    assert clean(places, pace) == {"asset_events": 1}
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT id FROM asset_event"))) == {1, 2}


def test_dag_versions_stay_while_a_task_has_them(places, pace):
    engine = places.metadata
    versions = [uuid.uuid4() for _ in range(4)]
    with engine.begin() as connection:
        for number, version in enumerate(versions):
            connection.execute(
                text(
                    "INSERT INTO dag_version (id, dag_id, version_number, created_at, last_updated)"
                    " VALUES (:id, 'sales', :number, :at, :at)"
                ),
                {"id": version, "number": number, "at": ago(200)},
            )
    add_run(engine, "new", 1, task={"dag_version_id": versions[0]})
    add_run(engine, "old", 100, task={"dag_version_id": versions[1]})
    assert clean(places, pace) == {"runs": 1, "dag_versions": 2}
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT id FROM dag_version"))) == {versions[0], versions[3]}


def test_callbacks_stay_while_they_are_due(places, pace):
    engine = places.metadata
    run = add_run(engine, "new", 1)
    with engine.begin() as connection:
        for state in ("success", "failed", "running", "scheduled", "scheduled-with-deadline"):
            callback = uuid.uuid4()
            connection.execute(
                text(
                    "INSERT INTO callback (id, type, fetch_method, data, state, priority_weight, created_at)"
                    " VALUES (:id, 't', 'f', '{}', :state, 1, :at)"
                ),
                {"id": callback, "state": state.partition("-")[0], "at": ago(100)},
            )
            if state.endswith("deadline"):
                connection.execute(
                    text(
                        "INSERT INTO deadline (id, dagrun_id, callback_id, missed, deadline_time, created_at,"
                        " last_updated_at) VALUES (:id, :run, :callback, false, now(), now(), now())"
                    ),
                    {"id": uuid.uuid4(), "run": run, "callback": callback},
                )
    assert clean(places, pace) == {"callbacks": 3}
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT state FROM callback"))) == {"running", "scheduled"}


def test_expired_rows_and_results_go_after_a_week(places, pace):
    with places.metadata.begin() as connection:
        for statement in (
            "INSERT INTO revoked_token (jti, exp) VALUES (:id, :at)",
            "INSERT INTO session (session_id, expiry) VALUES (:id, :at)",
        ):
            for days in (6, 8):
                connection.execute(text(statement), {"id": str(days), "at": ago(days)})
    with places.results.begin() as connection:
        for days in (6, 8):
            connection.execute(
                text("INSERT INTO results.celery_taskmeta VALUES (:id, :at)"), {"id": str(days), "at": ago(days)}
            )
    assert clean(places, pace) == {"revoked_tokens": 1, "sessions": 1, "results": 1}


def test_a_run_that_is_cleared_meanwhile_stays_and_holds_nobody_up(places, pace):
    engine = places.metadata
    add_run(engine, "cleared", 100)
    add_run(engine, "old", 100)
    with create_engine(engine.url).connect() as airflow:
        airflow.execute(text("UPDATE dag_run SET state = 'queued' WHERE run_id = 'cleared'"))
        started = time.monotonic()
        assert clean(places, pace) == {"runs": 1}
        assert time.monotonic() - started < 5
        airflow.commit()
    assert clean(places, pace) == {}
    assert runs(engine) == {"cleared"}


def test_a_crash_in_the_middle_leaves_nothing_behind(places, pace, tmp_path, server):
    engine = places.metadata
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    with engine.begin() as connection:
        before = connection.scalar(text(tables))
        connection.execute(
            text(
                "INSERT INTO dag_run (dag_id, run_id, run_type, state, end_date, run_after)"
                " SELECT 'sales', 'r' || n, 'manual', 'success', :at, :at FROM generate_series(1, 20000) n"
            ),
            {"at": ago(100)},
        )
    program = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from airflow_ha.maintenance import rows; from airflow_ha.maintenance.pace import Pace\n"
        "rows.MAX_ROWS = 100\n"
        "rule = rows.Rule('runs', 'dag_run', 'base.end_date', 90)\n"
        "rows.remove(rows.connect(sys.argv[1]), rule, datetime.now(UTC), Pace(Path(sys.argv[2])), is_dry_run=False)\n"
    )
    url = engine.url.render_as_string(hide_password=False)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", program, url, str(tmp_path / "alive")], env=environment) as child:
        while count(engine, "dag_run") == 20_000:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    left = count(engine, "dag_run")
    assert 0 < left < 20_000
    assert clean(places, pace) == {"runs": left}
    with engine.connect() as connection:
        assert connection.scalar(text(tables)) == before
        assert connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0


def test_old_rows_wait_for_the_operator(places, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(maintenance, "Pace", lambda: Pace(tmp_path / "alive"))
    monkeypatch.setattr(maintenance, "client", lambda: SimpleNamespace(incr=lambda *_: None))
    add_run(places.metadata, "old", 100)
    state = record.read(places.metadata)
    maintenance.run_if_approved(places, LIMITS, maintenance.client(), is_approved=state.is_approved(NOW))
    assert runs(places.metadata) == {"old"}
    assert "runs: 1" in capsys.readouterr().out
    assert record.read(places.metadata) == (state.first_seen, None, None)

    assert maintenance.run_once(places, LIMITS) == 0
    assert runs(places.metadata) == set()
    state = record.read(places.metadata)
    assert state.approved
    assert state.succeeded

    add_run(places.metadata, "older", 100)
    maintenance.run_if_approved(places, LIMITS, maintenance.client(), is_approved=state.is_approved(NOW))
    assert runs(places.metadata) == set()


def test_a_restored_backup_waits_for_the_operator_again(places):
    record.read(places.metadata)
    record.approve(places.metadata)
    record.succeed(places.metadata)
    state = record.read(places.metadata)
    assert [state.is_approved(NOW + timedelta(days=days)) for days in (13, 15)] == [True, False]


def test_a_new_stack_needs_no_operator(places, tmp_path, monkeypatch):
    monkeypatch.setattr(maintenance, "Pace", lambda: Pace(tmp_path / "alive"))
    add_run(places.metadata, "new", 1)
    record.read(places.metadata)
    maintenance.run_if_approved(places, LIMITS, SimpleNamespace(incr=lambda *_: None), is_approved=False)
    assert record.read(places.metadata).succeeded


def test_a_second_maintenance_is_refused_until_the_first_ends(places, capsys):
    with record.sole_run(places.metadata):
        assert maintenance.run_once(places, LIMITS) == maintenance.BUSY
    assert "it runs already" in capsys.readouterr().err
    with record.sole_run(places.metadata):
        pass


def test_a_failed_step_stops_no_other_and_is_no_success(places, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(maintenance, "Pace", lambda: Pace(tmp_path / "alive"))
    monkeypatch.setattr(maintenance, "client", lambda: SimpleNamespace(incr=lambda *_: None))
    add_run(places.metadata, "old", 100)
    with places.metadata.begin() as connection:
        connection.exec_driver_sql("DROP TABLE import_error")
    assert maintenance.run_once(places, LIMITS) == maintenance.FAILED
    assert runs(places.metadata) == set()
    assert "cannot remove import errors" in capsys.readouterr().out
    assert record.read(places.metadata).succeeded is None


def test_deleted_rows_are_vacuumed(places, pace):
    with places.metadata.begin() as connection:
        connection.execute(
            text("INSERT INTO log (dttm, event) SELECT :at, 'e' FROM generate_series(1, 5000)"), {"at": ago(400)}
        )
    assert clean(places, pace) == {"audit_log": 5000}
    deadline = time.monotonic() + 30
    while "log" not in vacuumed(places):
        places.metadata.dispose()  # a closed connection reports what it deleted
        assert time.monotonic() < deadline
        rows.vacuum(places.metadata, pace)


def vacuumed(places) -> set[str]:
    with places.metadata.connect() as connection:
        statement = "SELECT relname FROM pg_stat_user_tables WHERE last_vacuum IS NOT NULL"
        return set(connection.scalars(text(statement)))


def test_the_database_stops_growing_after_the_days_that_runs_stay(places, pace):
    """Thirty days of load with a limit of seven, each followed by a nightly run."""
    engine, kept = places.metadata, replace(LIMITS, runs_days=7, audit_days=7)
    sizes = []
    for day in range(30):
        with engine.begin() as connection:
            for statement in DAY_OF_LOAD:
                connection.execute(text(statement), {"at": NOW + timedelta(days=day), "prefix": f"day-{day}-"})
        for rule in rows.metadata_rules(kept, rows.last_runs(engine)):
            rows.remove(engine, rule, NOW + timedelta(days=day, hours=1), pace, is_dry_run=False)
        engine.dispose()  # a closed connection reports what it deleted
        rows.vacuum(engine, pace)
        with engine.connect() as connection:
            sizes.append(connection.scalar(SIZE))
    assert len(runs(engine)) == 7 * 50
    assert sizes[6] > 3 * sizes[0]
    assert sizes[-1] < 1.15 * sizes[14], sizes


SIZE = text(
    "SELECT sum(pg_total_relation_size(each::regclass))::bigint"
    " FROM unnest(ARRAY['dag_run', 'task_instance', 'xcom', 'log']) AS each"
)
DAY_OF_LOAD = (
    "INSERT INTO dag_run (dag_id, run_id, run_type, state, end_date, run_after)"
    " SELECT 'sales', :prefix || n, 'manual', 'success', :at, :at FROM generate_series(1, 50) n",
    "INSERT INTO task_instance (id, dag_id, run_id, task_id, state, try_number, pool, pool_slots)"
    " SELECT gen_random_uuid(), dag_id, run_id, n, 'success', 1, 'default_pool', 1"
    " FROM dag_run, generate_series(1, 12) n WHERE starts_with(run_id, :prefix)",
    "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, key, timestamp)"
    " SELECT run.id, run.dag_id, run_id, task_id, 'return_value', :at FROM dag_run run JOIN task_instance task"
    " USING (run_id) WHERE starts_with(run_id, :prefix)",
    "INSERT INTO log (dttm, event) SELECT :at, :prefix FROM generate_series(1, 600)",
)
