"""After a restore: what is held, settled, listed and released, by the command itself in a migrated Postgres."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import NullPool, create_engine, make_url, text

from airflow_ha.restored import hold, verification
from tests.docker_session import session_name
from tests.images.conftest import RESTRICTIONS, ROOT, docker
from tests.images.test_data_images import DATABASE_USER, wait_for

KEY = Fernet.generate_key().decode()
TIMEOUT = "SELECT trigger_timeout FROM task_instance WHERE task_id = 'deferred'"
DEADLINE = "SELECT deadline_time FROM deadline"
STARTS = "SELECT dag_id, start_date FROM dag_run WHERE state = 'running'"
QUEUES = "SELECT classpath, queue FROM trigger"
HELD_QUEUES = {"of a task": f"{hold.QUEUE}own", "of an asset": hold.QUEUE}
RESULTS = """
CREATE SCHEMA results; CREATE TABLE results.celery_taskmeta (task_id varchar(155) PRIMARY KEY, status varchar(50));
INSERT INTO results.celery_taskmeta VALUES ('message-of-queued', 'SUCCESS'), ('another', 'SUCCESS');
INSERT INTO session (session_id) VALUES ('of a user');
"""


@dataclass(frozen=True)
class Database:
    """A database in the state of restored_past.py."""

    container: str
    url: str
    home: Path
    key: str = KEY

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": self.key,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": self.url.replace("psycopg2", "psycopg_async"),
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.url}",
        }
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def restored(self, *arguments: str, code: int = 0) -> Any:
        """Run the command; return its report, or its error."""
        done = self.python("-m", "airflow_ha.restored", *arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr.splitlines()[-1]

    def run(self, *statements: str) -> None:
        with create_engine(self.url, poolclass=NullPool).begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def rows(self, query: str) -> dict[Any, Any]:
        with create_engine(self.url, poolclass=NullPool).connect() as connection:
            return dict(tuple(row) for row in connection.execute(text(query)))

    def value(self, query: str) -> Any:
        with create_engine(self.url, poolclass=NullPool).connect() as connection:
            return connection.execute(text(query)).scalar()


@dataclass(frozen=True)
class Server:
    """A container of Postgres, its URL as the superuser, and what `hold` reported of the database `held`."""

    container: str
    superuser: str
    report: dict[str, Any]


@pytest.fixture(scope="module")
def server(images, tmp_path_factory) -> Iterator[Server]:
    """A Postgres with two databases: `past` is in the restored state, and in `held` the hold has begun."""
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    options = ["--user", DATABASE_USER, "--tmpfs", "/tmp", "--tmpfs", "/var/lib/postgresql/data:uid=999"]
    options += ["--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775", "--env", "POSTGRES_PASSWORD=postgres"]
    docker("run", "--detach", "--name", name, *RESTRICTIONS, *options, images["POSTGRES_IMAGE"].reference)
    try:
        wait_for(name, "pg_isready", "-q", "-h", "127.0.0.1")
        address = docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        superuser = f"postgresql+psycopg2://postgres:postgres@{address.output.strip()}/postgres"
        execute(superuser, "CREATE ROLE airflow LOGIN PASSWORD 'airflow'", "CREATE DATABASE past OWNER airflow")
        past = database(name, superuser, "past", tmp_path_factory.mktemp("home"))
        written = past.python("-m", "tests.images.restored_past")
        assert written.returncode == 0, written.stderr
        past.run(RESULTS)
        execute(superuser, "CREATE DATABASE held TEMPLATE past OWNER airflow")
        report = database(name, superuser, "held", past.home).restored("hold", "--keep", "canary")
        yield Server(name, superuser, report)
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture
def copy(server, tmp_path) -> Iterator[Callable[[str], Database]]:
    """Copy a database for the test."""

    def make(template: str) -> Database:
        execute(server.superuser, f"CREATE DATABASE restored TEMPLATE {template} OWNER airflow")
        return database(server.container, server.superuser, "restored", tmp_path)

    yield make
    execute(server.superuser, "DROP DATABASE restored WITH (FORCE)")


@pytest.fixture
def past(copy) -> Database:
    return copy("past")


@pytest.fixture
def held(copy) -> Database:
    return copy("held")


def database(container: str, superuser: str, name: str, home: Path) -> Database:
    url = make_url(superuser).set(username="airflow", password="airflow", database=name)
    return Database(container, url.render_as_string(hide_password=False), home)


def execute(url: str, *statements: str) -> None:
    with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_hold_pauses_dags_and_settles_unfinished_tasks(server, held):
    report = server.report
    assert report["held"] == ["consumer", "daily", "replayed", "work"]
    assert {task["task_id"]: (task["state"], task["becomes"]) for task in report["settled"]} == {
        "queued": ("queued", "scheduled"),
        "running": ("running", "up_for_retry"),
        "restarting": ("restarting", "up_for_retry"),
        "no_retry_left": ("running", "failed"),
    }
    assert (report["ended_callbacks"], report["ended_sessions"]) == (2, 1)
    paused = {**dict.fromkeys(report["held"], True), "asleep": True, "canary": False}
    assert held.rows("SELECT dag_id, is_paused FROM dag") == paused
    assert held.rows("SELECT task_id, state FROM task_instance WHERE dag_id = 'work'") == {
        **{state: state for state in ("deferred", "awaiting_input", "up_for_retry", "scheduled")},
        "queued": "scheduled",
        "running": "up_for_retry",
        "restarting": "up_for_retry",
        "no_retry_left": "failed",
    }
    assert held.value("SELECT external_executor_id FROM task_instance WHERE task_id = 'queued'") is None
    assert held.rows("SELECT task_id, status FROM results.celery_taskmeta") == {"another": "SUCCESS"}
    assert held.rows(QUEUES) == HELD_QUEUES
    assert held.value("SELECT last_scheduling_decision FROM dag_run WHERE dag_id = 'work'") is None


def test_a_second_hold_loses_nothing(server, held):
    timeout = held.value(TIMEOUT)
    expected = {**server.report, "held": ["canary", *server.report["held"]], "ended_callbacks": 0, "ended_sessions": 0}
    assert held.restored("hold") == expected
    assert (held.value(TIMEOUT), held.rows(QUEUES)) == (timeout, HELD_QUEUES)


def test_unpausing_a_held_dag_anywhere_releases_it(copy, server):
    held = copy("held")
    past = database(server.container, server.superuser, "past", held.home)
    assert held.value(TIMEOUT) > past.value(TIMEOUT) + timedelta(days=365)
    before = past.rows(STARTS)
    assert held.rows(STARTS) == {**before, "canary": pytest.approx(datetime.now(UTC), abs=timedelta(hours=1))}
    held.run("UPDATE dag SET is_paused = false WHERE dag_id = 'work'")
    for query in (TIMEOUT, DEADLINE):  # an hour was left at the restored point, three days ago
        assert timedelta(days=3) <= held.value(query) - past.value(query) < timedelta(days=4)
    assert timedelta(days=3) <= held.rows(STARTS)["work"] - before["work"] < timedelta(days=4)
    assert held.rows(QUEUES) == {"of a task": "own", "of an asset": None}
    assert "work" not in held.rows("SELECT * FROM airflow_ha_held_dag")


def test_a_dag_unknown_to_the_past_is_held_until_all_are_released(held):
    create_dag(held, "later")
    assert held.restored("release", "daily", "unknown", code=1).startswith("cannot release unknown")
    assert held.restored("release", "daily")["held"] == ["consumer", "later", "replayed", "work"]
    assert held.restored("release", "--all")["held"] == []
    assert held.rows("SELECT is_paused, count(*) FROM dag GROUP BY 1") == {True: 1, False: 6}
    create_dag(held, "after")
    assert held.value("SELECT is_paused FROM dag WHERE dag_id = 'after'") is False


def create_dag(database: Database, dag_id: str) -> None:
    """Create a DAG as the DAG processor does for a file that asks for no pause."""
    changes = json.dumps({"dag_id": dag_id, "is_paused": False})
    copy = "INSERT INTO dag SELECT (jsonb_populate_record(dag, '{}')).* FROM dag WHERE dag_id = 'asleep'"
    database.run(copy.replace("{}", changes))


def test_missed_runs_are_listed_with_what_the_release_starts(held):
    report = held.restored("missed")
    rows = {row["dag_id"]: row for row in report["dags"]}
    midnights = (datetime.now(UTC).date() - datetime.fromisoformat(report["since"]).date()).days
    assert {dag_id: (row["missed"], row["starts"]) for dag_id, row in rows.items()} == {
        "daily": (midnights, 1),
        "replayed": (midnights, midnights),
        "canary": (midnights, 1),
        "consumer": (0, 0),
    }
    assert rows["consumer"]["assets"] == ["table"]
    assert "catchup=False" in rows["replayed"]["todo"]


def test_hold_refuses_a_running_airflow_and_another_schema(past):
    url = "postgresql://airflow:airflow@127.0.0.1/restored"
    docker("exec", "--detach", past.container, "psql", url, "-c", "SELECT pg_sleep(600)")
    wait_for(past.container, "psql", url, "-c", "SELECT 1 / count(*) FROM pg_stat_activity WHERE query ~ 'sleep.600'")
    assert "other connections use Airflow's database" in past.restored("hold", code=1)
    past.run("UPDATE alembic_version SET version_num = '0123456789ab'")
    assert "0123456789ab" in past.restored("hold", code=1)
    assert past.rows("SELECT is_paused, count(*) FROM dag GROUP BY 1") == {True: 1, False: 5}


def test_check_counts_rows_and_lists_what_the_key_does_not_decrypt(past):
    report = past.restored("check")
    assert report["problems"] == []
    assert (report["rows"]["dag"], report["encrypted"], report["amcheck"]) == (6, 5, False)
    other = replace(past, key=Fernet.generate_key().decode())
    problems = "\n".join(other.restored("check", code=1)["problems"])
    for value in ("password of connection shop", "extra of connection shop", "variable answer", "arguments of trigger"):
        assert value in problems


def test_a_damaged_index_is_reported(server, past):
    function = "CREATE OR REPLACE FUNCTION changing(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT {} * $1'"
    past.run(function.format(1), "CREATE TABLE numbers AS SELECT generate_series(1, 9) AS n")
    past.run("CREATE INDEX damaged ON numbers (changing(n))")
    assert verification.damage(server.superuser) == []
    past.run(function.format(-1))
    assert [problem.partition(":")[0] for problem in verification.damage(server.superuser)] == ["restored.damaged"]
