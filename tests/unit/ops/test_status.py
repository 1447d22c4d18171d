"""The status of a stack: one object, with the same fields in every state of the stack."""

from __future__ import annotations

import json

import pytest

from ops import settings_file, status
from ops.services import local_url, page_urls
from ops.status_tables import refused_log_ins
from tests.unit.stack_fakes import container

MODEL = {
    "name": "airflow-ha",
    "services": {
        "scheduler": {"deploy": {"replicas": 2}, "restart": "always"},
        "migrate": {"restart": "on-failure:5"},
    },
}


MIGRATED = container("migrate", 1, state="exited", policy="on-failure")


@pytest.fixture
def stack(project, docker):
    """A function that returns the status of a stack with the given containers."""
    project.env_file.write_text("AIRFLOW_IMAGE=airflow-ha/airflow:1\nSTACK_IMAGES_ORIGIN=AIRFLOW_IMAGE=airgap\n")
    docker.answer("config --format json", out=json.dumps(MODEL))

    def with_containers(*containers: dict) -> status.Status:
        docker.answer_containers(*containers)
        return status.collect(project)

    return with_containers


def test_stack_with_all_replicas_healthy_is_ready(stack):
    status_now = stack(
        container("scheduler", 1, health="healthy"), container("scheduler", 2, health="healthy"), MIGRATED
    )
    assert status_now["ready"] is True
    assert status_now["services"][1]["name"] == "scheduler"
    assert status_now["services"][1]["wanted"] == status_now["services"][1]["healthy"] == 2
    assert status_now["services"][1]["instances"][0] == {
        "id": "scheduler100", "state": "running", "health": "healthy", "suspended_tasks": 0,
        "refused_addresses": 0, "refused_users": 0, "waits_for": "",
    }  # fmt: skip
    assert status_now["images"] == {"AIRFLOW_IMAGE": {"reference": "airflow-ha/airflow:1", "origin": "airgap"}}
    assert status_now["urls"]["airflow"] == "http://localhost:8080"


@pytest.mark.parametrize(
    ("outputs", "suspended"),
    [([], 0), (["suspended tasks: 2\n"], 2), (["suspended tasks: 2\n", ""], 0), (["", "suspended tasks: 1\nx"], 1)],
)
def test_suspended_tasks_come_from_the_last_health_check(stack, outputs, suspended):
    worker = container("scheduler", 1, health="healthy")
    worker["State"]["Health"]["Log"] = [{"ExitCode": 0, "Output": output} for output in outputs]
    [instance] = stack(worker)["services"][1]["instances"]
    assert instance["suspended_tasks"] == suspended


def test_refused_log_ins_come_from_the_gateways_health_check(stack):
    gateway = container("gateway", 1, health="healthy")
    gateway["State"]["Health"]["Log"] = [{"Output": "refused log-ins: 2 addresses, 1 users\n"}]
    now = stack(gateway, MIGRATED)
    (instance,) = next(service for service in now["services"] if service["name"] == "gateway")["instances"]
    assert (instance["refused_addresses"], instance["refused_users"]) == (2, 1)
    assert refused_log_ins(instance) == "[yellow], log-ins refused: 2 addresses, 1 users[/]"


def test_what_maintenance_waits_for_comes_from_its_health_check(stack):
    service = container("maintenance", 1, health="healthy")
    service["State"]["Health"]["Log"] = [{"Output": "maintenance: waits for approval: run ./ops/stack maintenance\n"}]
    now = stack(service, MIGRATED)
    (instance,) = next(each for each in now["services"] if each["name"] == "maintenance")["instances"]
    assert instance["waits_for"] == "waits for approval: run ./ops/stack maintenance"


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
def test_stack_with_one_scheduler_of_two_is_not_ready(stack, second):
    assert stack(container("scheduler", 1, health="healthy"), *second, MIGRATED)["ready"] is False


def test_stack_with_a_surplus_instance_is_not_ready(stack):
    three = [container("scheduler", number, health="healthy") for number in (1, 2, 3)]
    assert stack(*three, MIGRATED)["ready"] is False


@pytest.mark.parametrize(
    "migrate",
    [
        container("migrate", 1, state="exited", code=1, policy="on-failure"),
        container("migrate", 1, state="running", policy="on-failure"),
        container("migrate", 1, state="created", policy="on-failure"),
    ],
    ids=["failed", "running", "created"],
)
def test_stack_whose_migration_has_not_succeeded_is_not_ready(stack, migrate):
    two = [container("scheduler", number, health="healthy") for number in (1, 2)]
    assert stack(*two, migrate)["ready"] is False


def test_status_before_up_has_every_field(project, docker):
    status_now = status.collect(project)
    assert status_now["ready"] is False
    assert set(status_now) == set(status.Status.__annotations__)


@pytest.mark.parametrize(
    ("address", "shown", "local"),
    [
        ("127.0.0.1", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("192.0.2.7", "http://192.0.2.7:8080", "http://192.0.2.7:8080"),
        ("::1", "http://localhost:8080", "http://[::1]:8080"),
    ],
)
def test_urls_work_for_users_and_for_this_host(address, shown, local):
    settings = {"BIND_ADDRESS": address, "AIRFLOW_PORT": "8080", "COMPOSE_PROFILES": "data"}
    assert page_urls(settings) == {"airflow": shown}
    assert local_url(settings) == local


def test_pages_are_those_of_the_active_profiles(project):
    settings = settings_file.read(project) | {"COMPOSE_PROFILES": "observability,slack-stub"}
    assert page_urls(settings)["alertmanager"] == "http://localhost:9093"
    assert page_urls(settings)["slack_stub"] == "http://localhost:8025"
    assert "slack_stub" not in page_urls(settings | {"COMPOSE_PROFILES": "observability"})
