"""The rights of the role that tasks can reach, in a real Postgres, and the upgrade of an older version's database."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from celery import Celery
from sqlalchemy import create_engine, text

from airflow_ha import result_backend, result_database
from tests.images.conftest import ROOT, docker
from tests.images.test_data_images import DATABASE_USER, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD_OWNER = "ALTER DATABASE celery_results OWNER TO celery_results"
OLD_TABLE = """
CREATE SEQUENCE task_id_sequence;
CREATE TABLE celery_taskmeta (id integer PRIMARY KEY DEFAULT nextval('task_id_sequence'), task_id varchar(155) UNIQUE,
  status varchar(50), result bytea, date_done timestamp, traceback text);
"""
REFUSED = (
    "SELECT * FROM results.celery_taskmeta",
    "INSERT INTO results.celery_taskmeta (task_id, status) VALUES ('one', 'SUCCESS')",
    "UPDATE results.celery_taskmeta SET status = 'FAILURE'",
    "DELETE FROM results.celery_taskmeta",
    "CREATE TABLE public.own (at int)",
    "CREATE TABLE results.own (at int)",
    "CREATE TEMPORARY TABLE own (at int)",
    "CREATE SCHEMA own",
    "CREATE FUNCTION results.store(text) RETURNS void LANGUAGE sql AS ''",
    "ALTER FUNCTION results.store SET search_path = public",
    "SELECT lo_from_bytea(0, 'large')",
    "SELECT pg_advisory_lock(1)",
    "SET ROLE airflow",
)
"""What the role that tasks can reach may not do."""


@pytest.fixture(autouse=True)
def storing_process(monkeypatch) -> None:
    """Store results here: a test of workers in the same process may have imported result_channel.py."""
    monkeypatch.setattr(result_backend, "send", None)


@pytest.fixture
def url_of(images, start, readable) -> Callable[[str, str], str]:
    """A new Postgres as the profile `data` creates it; the URL of a role and a database."""
    script = ROOT / "compose/postgres/create-databases.sh"
    secrets = {f"postgres_{name}_password": readable(name, name) for name in ("airflow", "celery", "monitoring")}
    container = start(
        *("--publish", "127.0.0.1::5432", "--user", DATABASE_USER, "--tmpfs", "/tmp"),
        *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775", "--tmpfs", "/var/lib/postgresql/data:uid=999"),
        *("--env", "POSTGRES_PASSWORD=postgres"),
        *("--volume", f"{readable(script.name, script.read_text())}:/docker-entrypoint-initdb.d/{script.name}:ro"),
        *(option for name, file in secrets.items() for option in ("--volume", f"{file}:/run/secrets/{name}:ro")),
        images["POSTGRES_IMAGE"].reference,
    )
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
    port = docker("port", container, "5432").output.strip().rpartition(":")[2]
    passwords = {"celery_results": "celery"}
    return lambda role, database: (
        f"postgresql+psycopg2://{role}:{passwords.get(role, role)}@127.0.0.1:{port}/{database}"
    )


@pytest.fixture
def secrets(url_of, tmp_path) -> Path:
    """The secret files of `migrate`."""
    (tmp_path / "celery_results_owner").write_text("db+" + url_of("airflow", "celery_results"))
    (tmp_path / "celery_result_backend").write_text("db+" + url_of("celery_results", "celery_results"))
    (tmp_path / "postgres_superuser_conn").write_text(url_of("postgres", "postgres"))
    return tmp_path


def run(url: str, *statements: str) -> None:
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def states(backend) -> dict[str, str]:
    with backend.ResultSession() as session:
        return {row.task_id: row.status for row in session.scalars(sqlalchemy.select(backend.task_cls))}


def backend_of(secrets: Path, name: str):
    backends = {"db": "airflow_ha.result_backend:ResultBackend"}
    url = (secrets / name).read_text()
    return Celery(set_as_current=False, config_source={"result_backend": url, "override_backends": backends}).backend


def make_old(url_of, secrets: Path) -> None:
    """Turn the database into that of an older version, with one pickled result."""
    run(url_of("postgres", "postgres"), OLD_OWNER)
    with create_engine(url_of("celery_results", "celery_results")).begin() as connection:
        connection.exec_driver_sql(OLD_TABLE)
        insert = "INSERT INTO celery_taskmeta VALUES (1, 'old', 'FAILURE', :pickle, now())"
        connection.execute(text(insert), {"pickle": pickle.dumps({"any": "thing"})})


def test_a_worker_stores_states_that_a_scheduler_reads(secrets, capsys):
    for _ in range(2):  # every `up`
        result_database.prepare(secrets)
    worker, scheduler = backend_of(secrets, "celery_result_backend"), backend_of(secrets, "celery_results_owner")
    worker.mark_as_done("one", {"any": "thing"})
    worker.store_result("two", None, "STARTED")
    worker.mark_as_failure("two", KeyError("none"), traceback="its traceback\nKeyError: none")
    assert states(scheduler) == {"one": "SUCCESS", "two": "FAILURE"}
    assert str(scheduler.get_task_meta("two")["result"]) == "KeyError: none"
    assert capsys.readouterr() == ("", "")


def test_a_worker_may_do_nothing_else(secrets, url_of):
    result_database.prepare(secrets)
    accepted = []
    for statement in REFUSED:
        try:
            run(url_of("celery_results", "celery_results"), statement)
            accepted.append(statement)
        except sqlalchemy.exc.ProgrammingError as error:
            assert re.search("permission denied|must be owner", str(error)), error  # noqa: PT017
    assert accepted == []


def test_a_worker_role_has_a_limit_of_connections(secrets, url_of):
    result_database.prepare(secrets)
    run(url_of("postgres", "postgres"), "ALTER ROLE celery_results CONNECTION LIMIT 1")
    result_database.prepare(secrets)
    with create_engine(url_of("airflow", "celery_results")).connect() as connection:
        role = connection.execute(
            text("SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = 'celery_results'")
        ).one()
    assert role[0] == result_database.WORKER_CONNECTIONS
    assert "statement_timeout=30s" in role[1]


def test_an_old_database_gets_the_new_rights_and_keeps_its_states(secrets, url_of, capsys):
    make_old(url_of, secrets)
    run(url_of("celery_results", "celery_results"), "CREATE TABLE of_a_task (at int)")
    result_database.prepare(secrets)
    result_database.prepare(secrets)
    assert states(backend_of(secrets, "celery_results_owner")) == {"old": "FAILURE"}
    assert "kept 1 states" in capsys.readouterr().out
    with pytest.raises(sqlalchemy.exc.ProgrammingError, match="does not exist"):
        run(url_of("airflow", "celery_results"), "SELECT * FROM of_a_task")
    with pytest.raises(sqlalchemy.exc.ProgrammingError, match="permission denied"):
        run(url_of("celery_results", "celery_results"), "CREATE SCHEMA own")


def test_an_interrupted_upgrade_is_completed(secrets, url_of):
    run(url_of("postgres", "postgres"), "DROP DATABASE celery_results")
    result_database.prepare(secrets)
    backend_of(secrets, "celery_result_backend").mark_as_done("one", None)
    assert states(backend_of(secrets, "celery_results_owner")) == {"one": "SUCCESS"}


def test_an_old_external_database_works_and_its_owner_is_reported(secrets, url_of, capsys):
    make_old(url_of, secrets)
    run(url_of("postgres", "postgres"), "REVOKE CONNECT ON DATABASE celery_results FROM PUBLIC, airflow")
    (secrets / "postgres_superuser_conn").write_text("")
    result_database.prepare(secrets)
    backend_of(secrets, "celery_result_backend").mark_as_done("one", None)
    assert states(backend_of(secrets, "celery_results_owner")) == {"old": "FAILURE", "one": "SUCCESS"}
    assert "ALTER DATABASE celery_results OWNER TO airflow" in capsys.readouterr().err
