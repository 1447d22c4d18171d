"""`maintenance` shows what would go, and removes it only after a confirmation."""

from __future__ import annotations

import pytest

from tests.unit.stack_fakes import container, run


@pytest.fixture
def executed(docker, project):
    """A function that returns the commands that ran in the service's container."""
    project.env_file.write_text("COMPOSE_PROJECT_NAME=airflow-ha\nAIRFLOW_IMAGE=airflow-ha/airflow:1\n")
    docker.answer("exec", out="runs: 3\n")
    docker.answer_containers(container("maintenance", 1, health="healthy"))
    return lambda: [call[-1] for call in docker.calls() if call[0] == "exec"]


def test_a_dry_run_removes_nothing(executed):
    result = run("maintenance", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "runs: 3" in result.stdout
    assert executed() == ["dry-run"]


def test_nothing_is_removed_without_a_confirmation(executed):
    result = run("maintenance")
    assert result.returncode == 2
    assert "add --yes" in result.stderr
    assert executed() == ["dry-run"]


def test_a_confirmed_run_removes(executed):
    assert run("maintenance", "--yes").returncode == 0
    assert executed() == ["run"]


def test_a_failed_step_is_a_failure(executed, docker):
    docker.answer("exec", out="cannot remove runs: QueryCanceled\n", code=1)
    result = run("maintenance", "--yes")
    assert result.returncode == 1
    assert "hint:" in result.stderr


def test_a_service_that_does_not_run_is_reported(executed, docker):
    docker.answer_containers(container("scheduler", 1, health="healthy"))
    result = run("maintenance", "--dry-run")
    assert result.returncode == 2
    assert "./ops/stack up" in result.stderr
    assert executed() == []
