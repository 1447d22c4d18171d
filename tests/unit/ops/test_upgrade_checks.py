"""The checks of an upgrade refuse what would fail later, and change nothing."""

from __future__ import annotations

import json

import pytest

from ops.errors import StackError
from ops.upgrade import checks, image_facts, revision, safety_backup
from ops.upgrade.image_facts import AirflowFacts
from tests.unit.ops.git_checkout import checkout, git
from tests.unit.stack_fakes import container, run

__all__ = ["checkout"]


def facts(version: str, head: str, known: list[str], **import_errors: str) -> AirflowFacts:
    return AirflowFacts(version, {"alembic_version": [head]}, {"alembic_version": known}, import_errors)


OLD = facts("3.3.2", "b", ["a", "b"])


@pytest.mark.parametrize(("head", "known", "migrates"), [("b", ["a", "b"], False), ("c", ["a", "b", "c"], True)])
def test_same_migration_head_needs_no_migration(head, known, migrates):
    assert checks.needs_migration(OLD, facts("3.4.0", head, known)) is migrates


def test_older_image_is_refused_with_the_unknown_schema():
    with pytest.raises(StackError, match="does not know the database's schema b") as error:
        checks.needs_migration(OLD, facts("3.2.0", "a", ["a"]))
    assert "backup" in error.value.hint


def test_new_table_of_versions_needs_a_migration():
    new = AirflowFacts("3.4.0", {**OLD.heads, "alembic_version_fab": ["x"]}, OLD.known, {})
    assert checks.needs_migration(OLD, new)


def test_dag_file_that_fails_only_in_the_new_image_is_refused():
    old = facts("3.3.2", "b", ["b"], both="ImportError: pandas")
    new = facts("3.4.0", "b", ["b"], both="ImportError: pandas", sales="ImportError: cannot import name 'x'")
    checks.refuse_import_errors(old, old)
    with pytest.raises(StackError, match=r"1 DAG file.*sales: ImportError: cannot import name 'x'"):
        checks.refuse_import_errors(old, new)


SETTINGS = {"COMPOSE_PROFILES": "data", "POSTGRES_IMAGE": "postgres-old", "REDIS_IMAGE": "redis-old"}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((17, 5), (17, 12), None),
        ((17, 12), (18, 1), "Postgres from 17.12 to 18.1"),
        ((17, 12), (17, 5), "postgres 17.12 by the older 17.5"),
    ],
)
def test_another_major_or_an_older_postgres_is_refused(monkeypatch, before, after, reason):
    versions = {"postgres-old": before, "postgres-new": after}
    monkeypatch.setattr(checks, "server_version", lambda image, _: versions[image])
    new = SETTINGS | {"POSTGRES_IMAGE": "postgres-new"}
    if reason is None:
        checks.refuse_server_changes(SETTINGS, new)
    else:
        with pytest.raises(StackError, match=reason):
            checks.refuse_server_changes(SETTINGS, new)


def test_images_of_an_external_database_are_not_compared():
    settings = SETTINGS | {"COMPOSE_PROFILES": ""}
    checks.refuse_server_changes(settings, settings | {"POSTGRES_IMAGE": "postgres-new"})


@pytest.mark.parametrize(
    ("program", "output", "version"),
    [
        ("postgres", "postgres (PostgreSQL) 17.12 (Debian 17.12-0+deb13u1)", (17, 12)),
        ("redis-server", "Redis server v=8.0.2 sha=00000000:0 malloc=jemalloc-5.3.0", (8, 0, 2)),
    ],
)
def test_version_of_a_server_is_read_in_its_image(docker, program, output, version):
    docker.answer("run", out=output)
    assert image_facts.server_version("image", program) == version


def test_facts_are_read_without_a_network(docker, tmp_path):
    each = {"alembic_version": {"heads": ["b"], "known": ["a", "b"]}}
    docker.answer("run", out=json.dumps({"version": "3.3.2", "migrations": each, "import_errors": {}}))
    assert image_facts.airflow_facts("image", tmp_path, tmp_path) == OLD
    assert {"--network=none", "--read-only"} <= set(docker.calls()[0])


def test_image_that_reports_nothing_is_refused_with_its_error(docker, tmp_path):
    docker.answer("run", err="ModuleNotFoundError: airflow", code=1)
    with pytest.raises(StackError, match="ModuleNotFoundError"):
        image_facts.airflow_facts("image", tmp_path, tmp_path)


def test_migration_without_the_backup_profile_is_refused():
    safety_backup.require({"COMPOSE_PROFILES": "data,backup"})
    with pytest.raises(StackError, match="profile backup is off") as error:
        safety_backup.require({"COMPOSE_PROFILES": "data"})
    assert "--without-backup" in error.value.hint


# ---- versions


def test_unknown_version_is_refused(checkout):
    with pytest.raises(StackError, match="no such version"):
        revision.commit_of(checkout, "v9")


def test_version_without_the_command_is_refused(checkout):
    with pytest.raises(StackError, match="has no upgrade"):
        revision.commit_of(checkout, "new")


def test_changed_file_is_refused_by_its_name(checkout):
    (checkout / "version").write_text("mine")
    with pytest.raises(StackError, match="changed") as error:
        revision.refuse_changes(checkout, "new")
    assert error.value.where == "version"


def test_own_file_that_the_new_version_has_is_refused(checkout):
    git(checkout, "checkout", "new")
    (checkout / "added").write_text("theirs")
    git(checkout, "add", "added")
    git(checkout, "commit", "-m", "added")
    git(checkout, "tag", "newer")
    git(checkout, "checkout", "main")
    (checkout / "added").write_text("mine")
    with pytest.raises(StackError, match=r"overwrite files of yours: .*added"):
        revision.refuse_changes(checkout, "newer")
    (checkout / "added").unlink()
    revision.refuse_changes(checkout, "newer")


def test_branch_is_checked_out_itself_and_a_tag_as_a_commit(checkout):
    git(checkout, "branch", "next", "new")
    assert revision.to_check_out(checkout, "next") == "next"
    revision.switch(checkout, "next")
    assert revision.current(checkout) == "next"


def test_worktree_of_an_interrupted_upgrade_is_replaced(checkout, tmp_path):
    folder = tmp_path / "files"
    for _ in range(2):
        revision.add_worktree(checkout, "new", folder)
        assert (folder / "version").read_text() == "new"
        (folder / "version").write_text("changed")
    revision.remove_worktree(checkout, folder)
    assert not folder.exists()


# ---- the command


def test_upgrade_before_up_is_refused(project, docker):
    result = run("upgrade")
    assert result.returncode == 2
    assert "./ops/stack up" in result.stderr


def test_upgrade_of_an_unhealthy_stack_is_refused(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer_containers(container("worker", 1, health="unhealthy"))
    docker.answer("config --format json", out=json.dumps({"name": "airflow-ha", "services": {"worker": {}}}))
    result = run("upgrade")
    assert result.returncode == 2
    assert "worker is not healthy" in result.stderr
    assert not [call for call in docker.calls() if {"up", "stop", "run"} & set(call)]
