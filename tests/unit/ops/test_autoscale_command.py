"""`autoscale` checks and writes its bounds, raises the parallelism once, and asks schedulers for the tasks."""

from __future__ import annotations

import json

import pytest

from ops import compose, preflight, rolling, settings_file, worker_slots
from ops.autoscaling import preparation, task_counts
from ops.autoscaling.decision import Demand
from ops.compose import Instance
from ops.errors import StackError
from ops.observability import generated_config
from tests.unit.compose.model import COMPOSE
from tests.unit.stack_fakes import container, run

GIB = 1 << 30


def model(parallelism: int, slots: int = 8) -> dict[str, object]:
    worker = {"entrypoint": ["celery", "worker"], "environment": {worker_slots.CONCURRENCY: str(slots)}}
    scheduler = {"environment": {worker_slots.PARALLELISM: str(parallelism)}}
    replicas = {"deploy": {"replicas": 2}}
    return {"name": "airflow-ha", "services": {"worker": worker | replicas, "scheduler": scheduler | replicas}}


@pytest.fixture
def replaced(project, docker, monkeypatch) -> list[list[str]]:
    """A running stack; the services whose containers are replaced."""
    calls: list[list[str]] = []
    docker.answer_containers(container("worker", 1), container("scheduler", 1))
    monkeypatch.setattr(compose, "config", lambda _: model(16))
    monkeypatch.setattr(preflight, "machine_memory", lambda: 24 * GIB)
    monkeypatch.setattr(rolling, "replace_outdated", lambda _project, _report, within: calls.append(within))
    monkeypatch.setattr(generated_config, "write", lambda *_: None)
    monkeypatch.setattr(generated_config, "load", lambda *_: None)
    project.env_file.write_text("WORKER_MEMORY=2g\n")
    return calls


def test_the_bounds_are_kept_and_the_schedulers_get_parallelism(project, replaced):
    preparation.prepare(project, {"WORKER_FLOOR": "2", "WORKER_CEILING": "4"}, print)
    settings = settings_file.read(project)
    assert {key: settings[key] for key in ("WORKER_FLOOR", "WORKER_CEILING", "PARALLELISM")} == {
        "WORKER_FLOOR": "2",
        "WORKER_CEILING": "4",
        "PARALLELISM": "32",
    }
    assert replaced == [["scheduler"]]


def test_sufficient_parallelism_replaces_no_scheduler(project, replaced, monkeypatch):
    monkeypatch.setattr(compose, "config", lambda _: model(40))
    preparation.prepare(project, {"WORKER_CEILING": "4"}, print)
    assert "PARALLELISM" not in settings_file.read(project)
    assert replaced == []


def test_parallelism_counts_the_slots_of_other_workers():
    services = model(16)["services"]
    gpu = {**services["worker"], "environment": {worker_slots.CONCURRENCY: "3"}, "deploy": {"replicas": 2}}
    raised = worker_slots.raised_parallelism({"services": {**services, "worker-gpu": gpu}}, {"WORKER_CEILING": "4"})
    assert raised == {"PARALLELISM": str(4 * 8 + 2 * 3)}
    assert worker_slots.raised_parallelism(model(16), {}) == {}


@pytest.mark.usefixtures("replaced")
@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({}, "WORKER_CEILING is not set"),
        ({"WORKER_FLOOR": "5", "WORKER_CEILING": "4"}, "below the floor"),
        ({"WORKER_CEILING": "1"}, "below the floor"),
        ({"WORKER_CEILING": "13"}, "13 workers of 2g"),
    ],
)
def test_bounds_that_cannot_hold_are_refused_and_not_kept(project, chosen, reason):
    before = project.env_file.read_text()
    with pytest.raises(StackError, match=reason):
        preparation.prepare(project, chosen, print)
    assert project.env_file.read_text() == before


def test_a_stack_that_does_not_run_is_refused(project, docker):
    result = run("autoscale", "--ceiling", "4")
    assert result.returncode == 2
    assert "./ops/stack up" in result.stderr


@pytest.mark.parametrize("option", ["--ceiling=0", "--floor=21", "--scale-in-after=0"])
def test_an_option_out_of_range_is_refused(project, docker, option):
    assert run("autoscale", option).returncode == 2
    assert docker.calls() == []


def test_one_dry_step_prints_its_decision_and_changes_nothing(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nWORKER_CONCURRENCY=8\n")
    before = project.env_file.read_text()
    docker.answer_containers(container("worker", 1), container("scheduler", 1))
    docker.answer("info", out=str(24 * GIB))
    docker.answer("exec", out=json.dumps({"queued": 30, "running": 2}))
    result = run("autoscale", "--once", "--dry-run", "--ceiling", "6")
    assert result.returncode == 0, result.stderr
    assert "workers 2 -> 4: 30 queued, 2 running" in result.stdout
    assert project.env_file.read_text() == before
    assert not any({"up", "start", "stop"} & set(call) for call in docker.calls())


def test_one_step_without_a_count_fails(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\nWORKER_CEILING=4\n")
    docker.answer_containers(container("worker", 1), container("scheduler", 1))
    docker.answer("info", out=str(24 * GIB))
    docker.answer("exec", err="connection refused\n", code=1)
    result = run("autoscale", "--once", "--dry-run")
    assert (result.returncode, "connection refused" in result.stdout) == (1, True)


# ---- the count


SCHEDULERS = {"scheduler": [Instance(name, "running", "healthy", 0.0) for name in ("first", "second")]}


def test_the_next_scheduler_answers_for_one_that_cannot(docker):
    docker.answer("exec first", err="no answer\n", code=1)
    docker.answer("exec second", out='{"queued": 3, "running": 1}')
    assert task_counts.read(SCHEDULERS, "default,high") == Demand(3, 1)
    assert docker.calls()[-1] == ["exec", "second", "python", "-m", task_counts.MODULE, "default,high"]


def test_a_hung_scheduler_is_passed_over(docker, monkeypatch):
    monkeypatch.setattr(task_counts, "ANSWER_SECONDS", 1.0)
    docker.answer("exec first", hangs=True)
    docker.answer("exec second", out='{"queued": 3, "running": 1}')
    assert task_counts.read(SCHEDULERS, "default") == Demand(3, 1)


@pytest.mark.parametrize("by_service", [{}, {"scheduler": [Instance("a", "exited", "unhealthy", 0.0)]}])
def test_without_a_running_scheduler_there_is_no_count(docker, by_service):
    with pytest.raises(StackError, match="no scheduler runs"):
        task_counts.read(by_service, "default")
    assert docker.calls() == []


def test_only_schedulers_have_the_parallelism_that_autoscaling_raises():
    """A raised one then replaces no other component."""
    lines = (COMPOSE / "airflow.yaml").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("AIRFLOW__CORE__PARALLELISM:")]
    assert line.startswith(" " * 6), "it is not among the common settings"
