"""The status of a stack: one object, with the same fields whatever runs."""

from __future__ import annotations

import json

import pytest

from ops import settings_file, status
from ops.services import local_url, page_urls

MODEL = {
    "name": "airflow-ha",
    "services": {
        "scheduler": {"deploy": {"replicas": 2}, "restart": "always"},
        "migrate": {"restart": "on-failure:5"},
    },
}


def container(service: str, number: int, *, state="running", health=None, code=0, policy="always") -> dict:
    found = {
        "Id": f"{service}{number}".ljust(64, "0"),
        "Created": f"2026-01-01T00:00:0{number}.123456789Z",
        "State": {"Status": state, "ExitCode": code},
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.oneoff": "False"}},
        "HostConfig": {"RestartPolicy": {"Name": policy}},
    }
    if health:
        found["State"]["Health"] = {"Status": health}
    return found


MIGRATED = container("migrate", 1, state="exited", policy="on-failure")


@pytest.fixture
def stack(project, docker):
    """A stack with the given containers."""
    project.env_file.write_text("AIRFLOW_IMAGE=airflow-ha/airflow:1\nSTACK_IMAGES_ORIGIN=AIRFLOW_IMAGE=airgap\n")
    docker.answer("config --format json", out=json.dumps(MODEL))

    def with_containers(*containers: dict) -> status.Status:
        docker.answer("ps --all", out="\n".join(one["Id"] for one in containers))
        docker.answer("inspect", out=json.dumps(list(containers)))
        return status.collect(project)

    return with_containers


def test_a_whole_stack_is_ready(stack):
    found = stack(container("scheduler", 1, health="healthy"), container("scheduler", 2, health="healthy"), MIGRATED)
    assert found["ready"] is True
    assert found["services"][1]["name"] == "scheduler"
    assert found["services"][1]["wanted"] == found["services"][1]["healthy"] == 2
    assert found["services"][1]["instances"][0] == {
        "id": "scheduler100", "state": "running", "health": "healthy", "suspended_tasks": 0,
    }  # fmt: skip
    assert found["images"] == {"AIRFLOW_IMAGE": {"reference": "airflow-ha/airflow:1", "origin": "airgap"}}
    assert found["urls"]["airflow"] == "http://localhost:8080"


@pytest.mark.parametrize(
    ("outputs", "suspended"),
    [([], 0), (["suspended tasks: 2\n"], 2), (["suspended tasks: 2\n", ""], 0), (["", "suspended tasks: 1\nx"], 1)],
)
def test_a_workers_suspended_tasks_are_those_of_its_last_check(stack, outputs, suspended):
    worker = container("scheduler", 1, health="healthy")
    worker["State"]["Health"]["Log"] = [{"ExitCode": 0, "Output": output} for output in outputs]
    [instance] = stack(worker)["services"][1]["instances"]
    assert instance["suspended_tasks"] == suspended


@pytest.mark.parametrize(
    "second",
    [
        [],
        [container("scheduler", 2, health="unhealthy")],
        [container("scheduler", 2, health="starting")],
        [container("scheduler", 2, state="exited", health="healthy")],
        [container("scheduler", 2, state="paused", health="healthy")],
    ],
    ids=["missing", "unhealthy", "starting", "exited", "paused"],
)
def test_a_stack_with_one_scheduler_of_two_is_not_ready(stack, second):
    assert stack(container("scheduler", 1, health="healthy"), *second, MIGRATED)["ready"] is False


def test_a_stack_with_an_instance_too_many_is_not_ready(stack):
    three = [container("scheduler", number, health="healthy") for number in (1, 2, 3)]
    assert stack(*three, MIGRATED)["ready"] is False


def test_a_migration_that_failed_is_not_ready(stack):
    failed = container("migrate", 1, state="exited", code=1, policy="on-failure")
    two = [container("scheduler", number, health="healthy") for number in (1, 2)]
    assert stack(*two, failed)["ready"] is False


def test_a_stack_that_was_never_started_is_not_ready_and_has_the_same_fields(project, docker):
    found = status.collect(project)
    assert found["ready"] is False
    assert set(found) == set(status.Status.__annotations__)


@pytest.mark.parametrize(
    ("address", "shown", "asked"),
    [
        ("127.0.0.1", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("192.0.2.7", "http://192.0.2.7:8080", "http://192.0.2.7:8080"),
        ("::1", "http://localhost:8080", "http://[::1]:8080"),
    ],
)
def test_urls_are_what_people_and_this_machine_can_open(address, shown, asked):
    settings = {"BIND_ADDRESS": address, "AIRFLOW_PORT": "8080", "COMPOSE_PROFILES": "data"}
    assert page_urls(settings) == {"airflow": shown}
    assert local_url(settings) == asked


def test_alertmanager_and_the_stacks_own_slack_are_pages_while_they_are_on(project):
    settings = settings_file.read(project) | {"COMPOSE_PROFILES": "observability,slack-stub"}
    assert page_urls(settings)["alertmanager"] == "http://localhost:9093"
    assert page_urls(settings)["slack_stub"] == "http://localhost:8025"
    assert "slack_stub" not in page_urls(settings | {"COMPOSE_PROFILES": "observability"})
