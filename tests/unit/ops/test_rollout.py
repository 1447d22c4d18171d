"""A rollout ends when every service is well, and says which one is to blame when that does not come."""

from __future__ import annotations

import json

import pytest

from ops import rollout
from ops.errors import FAILURE, StackError
from tests.unit.ops.test_status import container

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
    """Sets which containers there are; a rollout looks at them without pause."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    docker.answer("config --format json", out=json.dumps(MODEL))

    def with_containers(*containers: dict) -> None:
        docker.answer("ps --all", out="\n".join(one["Id"] for one in containers))
        docker.answer("inspect", out=json.dumps(list(containers)))

    return with_containers


def test_it_ends_when_every_service_is_well(project, docker, stack):
    stack(*APIS, container("postgres", 1, health="healthy"))
    said: list[str] = []
    rollout.roll_out(project, said.append, "--remove-orphans")
    assert said[-1] == "2 services are healthy"
    assert any(call[-3:] == ["up", "--detach", "--remove-orphans"] for call in docker.calls())


def test_a_command_that_fails_is_told_with_the_service_that_holds_up_the_others_and_its_log(project, docker, stack):
    unhealthy = [container("api-server", number, health="unhealthy") for number in (1, 2)]
    stack(*unhealthy, container("postgres", 1, state="restarting", health="unhealthy"))
    docker.answer("logs --no-color", out="\x1b[2KFATAL: data directory has wrong ownership\n")
    docker.answer("up --detach", err="dependency failed to start\n", code=1)
    said: list[str] = []
    with pytest.raises(StackError, match="postgres is not healthy; docker compose up failed") as error:
        rollout.roll_out(project, said.append)
    assert "  FATAL: data directory has wrong ownership" in said
    assert error.value.where == "postgres postgres1000 is restarting, unhealthy"
    assert "./ops/stack logs postgres" in error.value.hint
    assert error.value.code == FAILURE


def test_nothing_getting_on_for_too_long_is_an_error_even_while_compose_waits(project, docker, stack, monkeypatch):
    stack(*APIS, container("postgres", 1, health="starting"))
    docker.answer("up --detach", hangs=True)
    monkeypatch.setattr(rollout, "STALL_SECONDS", 0.1)
    with pytest.raises(StackError, match="postgres is not healthy; no service has got on for 0 s"):
        rollout.roll_out(project, lambda _: None)


def test_an_instance_that_finishes_its_work_before_it_goes_is_not_a_stall(project, docker, stack, monkeypatch):
    three = [container("api-server", number, health="healthy") for number in (1, 2, 3)]
    stack(*three, container("postgres", 1, health="healthy"))
    docker.answer("up --detach", hangs=True)
    monkeypatch.setattr(rollout, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(rollout, "REPORT_SECONDS", 0.0)
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == 3:  # it has gone: the first two looks were no error
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rollout.roll_out(project, report)
    assert said == ["1 of 2 services are healthy; waiting for api-server 3/2"] * 3
