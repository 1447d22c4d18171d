"""A restore with Airflow's migration and hold, as the compose files run them, without published ports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ops import compose, data_tier, deployment, restored, secrets_store, settings_file
from ops.backup import creation, repository, restoration
from ops.backup.restoration import Restoration
from ops.backup.sets import choose
from ops.errors import StackError
from ops.project import Project
from tests.images.test_backup import SERVICES, backup_project, wait

ADD_VARIABLE = "INSERT INTO variable (key, val, is_encrypted) VALUES ('{key}', '1', false)"


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """A migrated database of Airflow with its backup services, and Redis."""
    state, profiles = tmp_path_factory.mktemp("state"), "data,backup,backup-data"
    with backup_project(state, images, profiles, (*SERVICES, "redis")) as project:
        compose.output(project, "up", "--detach", "migrate")
        wait(lambda: compose.instances(name_of(project))["migrate"][0].health == "done", 240)
        yield project


@pytest.fixture(autouse=True)
def without_ports(monkeypatch):
    """Of the last step start only what publishes no port."""
    start = deployment.start
    monkeypatch.setattr(
        deployment, "start", lambda project, settings, services=None: start(project, settings, services or SERVICES)
    )


def name_of(project: Project) -> str:
    return settings_file.read(project)["COMPOSE_PROJECT_NAME"]


def query(project: Project, sql: str) -> str:
    (postgres,) = compose.instances(name_of(project))["postgres"]
    result = data_tier.execute(postgres.id, "psql", "-U", "postgres", "-Atqc", sql, "airflow")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def planned(project: Project, at: datetime | None) -> Restoration:
    settings = settings_file.read(project)
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    chosen = choose(repository.contents(place).sets, at, None, datetime.now(UTC))
    return Restoration(project, settings, place, chosen, at, is_exact=False, report=print, with_files=False)


def add_variable(project: Project, key: str) -> None:
    query(project, ADD_VARIABLE.format(key=key))


def test_a_restore_migrates_and_holds_before_airflow_runs(project, images):
    creation.make(settings_file.read(project), print)
    add_variable(project, "before")
    time.sleep(1.1)
    at = datetime.now(UTC)
    time.sleep(1.1)
    add_variable(project, "after")
    token_secret = secrets_store.read(project, "jwt_tasks_key")

    plan = planned(project, at)
    restoration.restore_database(plan)
    reports = []
    restoration.change(plan, images, lambda: reports.append(restored.hold(project)))
    assert query(project, "SELECT key FROM variable WHERE key IN ('before', 'after')") == "before"
    assert reports[0]["restored_at"]
    assert secrets_store.read(project, "jwt_tasks_key") != token_secret
    assert "archive-push" in query(project, "SHOW archive_command")


def test_a_failed_hold_leaves_the_former_database(project, images):
    plan = planned(project, None)
    restoration.restore_database(plan)
    add_variable(project, "former")

    def fails() -> None:
        raise StackError("cannot hold")

    with pytest.raises(StackError, match="cannot hold"):
        restoration.change(plan, images, fails)
    assert query(project, "SELECT count(*) FROM variable WHERE key = 'former'") == "1"
    assert "archive-push" in query(project, "SHOW archive_command")


def test_a_damaged_restore_leaves_the_former_database(project, images):
    function = "CREATE OR REPLACE FUNCTION changing(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT {} * $1'"
    index = "CREATE TABLE numbers AS SELECT 1 AS n; CREATE INDEX damaged ON numbers (changing(n))"
    query(project, f"{function.format(1)}; {index}; {function.format(-1)}")
    plan = planned(project, None)
    restoration.restore_database(plan)
    query(project, "DROP INDEX damaged")
    with pytest.raises(StackError, match="checks of the restored database"):
        restoration.change(plan, images, lambda: restored.refuse_problems(project, {}))
    assert query(project, "SELECT count(*) FROM pg_class WHERE relname = 'damaged'") == "0"
    assert "archive-push" in query(project, "SHOW archive_command")
