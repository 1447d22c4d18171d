"""The change of Postgres' major version in ops/README.md: its commands take Airflow's database into a new volume."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from ops import compose, data_tier, settings_file
from ops.project import ROOT, Project
from tests.images.test_backup import backup_project

CONTENT = "CREATE TABLE kept (name text); INSERT INTO kept VALUES ('ä'); ALTER TABLE kept OWNER TO airflow"
RIGHTS = "SELECT datname, datdba::regrole, datacl FROM pg_database ORDER BY datname"


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """A Postgres as the compose files run it."""
    with backup_project(tmp_path_factory.mktemp("state"), images, "data", ("postgres",)) as project:
        yield project


def query(project: Project, statements: str, database: str = "airflow") -> str:
    (postgres,) = compose.instances(settings_file.read(project)["COMPOSE_PROJECT_NAME"])["postgres"]
    result = data_tier.execute(postgres.id, "psql", "-U", "postgres", "-d", database, "-Atqc", statements)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def documented(project: Project, program: str) -> str:
    """Return the documented command line of a program in Postgres' container, for this stack."""
    (arguments,) = re.findall(
        rf"^docker compose (exec -T postgres {program} .*)$", (ROOT / "ops/README.md").read_text(), re.MULTILINE
    )
    return f"{shlex.join(compose.command(project))} {arguments}"


def run(project: Project, line: str) -> None:
    subprocess.run(["bash", "-c", line], check=True, cwd=project.state, env=compose.environment(project))


def test_documented_commands_keep_the_database_in_a_new_volume(project):
    query(project, CONTENT)
    before = query(project, RIGHTS)
    run(project, documented(project, "pg_dump"))
    compose.output(project, "down", "--volumes", "--timeout=30")
    compose.output(project, "up", "--detach", "--wait", "postgres")
    assert query(project, "SELECT to_regclass('kept')") == ""
    run(project, documented(project, "psql"))
    assert query(project, "SELECT name, tableowner FROM kept, pg_tables WHERE tablename = 'kept'") == "ä|airflow"
    assert query(project, RIGHTS) == before
