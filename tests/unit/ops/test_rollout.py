"""A rollout ends when every service is healthy; a failed rollout names the blocking service."""

from __future__ import annotations

import json

import pytest

from ops import rollout
from ops.errors import FAILURE, StackError
from tests.unit.stack_fakes import container

MODEL = {
    "name": "airflow-ha",
    "services": {
        "api-server": {"depends_on": {"postgres": {}}, "deploy": {"replicas": 2}},
        "postgres": {},
    },
}
APIS = [container("api-server", number, health="healthy") for number in (1, 2)]


@pytest.fixture
def stack(project, docker, monkeypatch):
    """A function that sets the containers of the stack; a rollout polls them without delay."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    docker.answer("config --format json", out=json.dumps(MODEL))
    return docker.answer_containers


def test_rollout_ends_when_every_service_is_healthy(project, docker, stack):
    stack(*APIS, container("postgres", 1, health="healthy"))
    reported: list[str] = []
    rollout.roll_out(project, reported.append, "--remove-orphans")
    assert reported[-1] == "2 services are healthy"
    assert any(call[-3:] == ["up", "--detach", "--remove-orphans"] for call in docker.calls())


def test_failed_rollout_reports_the_blocking_service_and_its_log(project, docker, stack):
    unhealthy = [container("api-server", number, health="unhealthy") for number in (1, 2)]
    stack(*unhealthy, container("postgres", 1, state="restarting", health="unhealthy"))
    docker.answer("logs --no-color", out="\x1b[2KFATAL: data directory has wrong ownership\n")
    docker.answer("up --detach", err="dependency failed to start\n", code=1)
    reported: list[str] = []
    with pytest.raises(StackError, match=r"(?s)postgres is not healthy; .*dependency failed to start") as error:
        rollout.roll_out(project, reported.append)
    assert "  FATAL: data directory has wrong ownership" in reported
    assert error.value.where == "postgres postgres1000 is restarting, unhealthy"
    assert "./ops/stack logs postgres" in error.value.hint
    assert error.value.code == FAILURE


def test_rollout_without_progress_fails_while_compose_waits(project, docker, stack, monkeypatch):
    stack(*APIS, container("postgres", 1, health="starting"))
    docker.answer("up --detach", hangs=True)
    monkeypatch.setattr(rollout, "STALL_SECONDS", 0.1)
    with pytest.raises(StackError, match="postgres is not healthy; no service became healthy"):
        rollout.roll_out(project, lambda _: None)


def test_surplus_instance_that_finishes_its_work_is_no_stall(project, docker, stack, monkeypatch):
    three = [container("api-server", number, health="healthy") for number in (1, 2, 3)]
    stack(*three, container("postgres", 1, health="healthy"))
    docker.answer("up --detach", hangs=True)
    monkeypatch.setattr(rollout, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(rollout, "REPORT_SECONDS", 0.0)
    reported: list[str] = []

    def report(line: str) -> None:
        reported.append(line)
        if len(reported) == 3:  # the first two polls raised no error
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rollout.roll_out(project, report)
    assert reported == ["1 of 2 services are healthy; waiting for api-server 3/2"] * 3
