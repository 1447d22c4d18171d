"""Limits of the containers: taken from .env, checked, and sized for the machine."""

from __future__ import annotations

import json

import pytest

from ops import compose, container_limits, settings_file
from ops.container_limits import GIB, MIB, size_workers
from ops.errors import StackError
from tests.unit.compose.model import COMPOSE, ONE_SHOTS, compose_model

KNOWN = container_limits.defaults(COMPOSE)


def sized(gib: float, **settings: str) -> tuple[float, int]:
    sizes = size_workers({"WORKER_REPLICAS": "2", **settings}, int(gib * GIB))
    return container_limits.size(sizes["WORKER_MEMORY"]) / GIB, int(sizes["WORKER_CONCURRENCY"])


@pytest.mark.parametrize(
    ("machine", "memory", "slots"),
    [(64, 4, 8), (23.6, 4, 8), (12.1, 4, 8), (10, 3, 8), (8, 2, 6), (6, 1, 2), (4, 1, 2)],
)
def test_workers_are_sized_for_the_machine(machine, memory, slots):
    assert sized(machine) == (memory, slots)


def test_defaults_hold_16_ordinary_tasks_of_200_mb():
    """8 tasks a worker, each with 120 MiB of imports and 200 MB: the DAG data_tasks of tests/integration."""
    memory, slots = sized(24)
    assert memory * GIB >= container_limits.WORKER_BASE + slots * (120 * MIB + 200_000_000)


def test_operators_values_are_kept():
    assert sized(64, WORKER_MEMORY="2g") == (2, 6)
    assert sized(64, WORKER_CONCURRENCY="16") == (7.5, 16)
    assert sized(8, WORKER_CONCURRENCY="16") == (2.5, 16)
    assert sized(8, WORKER_MEMORY="6g", WORKER_CONCURRENCY="3") == (6, 3)


def test_four_workers_share_the_memory_of_two():
    assert sized(12, WORKER_REPLICAS="4") == (2, 6)


@pytest.mark.parametrize("gib", [2, 4, 6, 8, 16, 24, 64])
@pytest.mark.parametrize("slots", ["", "1", "8", "64"])
def test_sizes_pass_their_own_check(project, gib, slots):
    settings = settings_file.read(project) | {"WORKER_CONCURRENCY": slots}
    assert container_limits.refused_values(settings | size_workers(settings, gib * GIB), KNOWN) == []


def test_every_limit_is_a_setting():
    text = "\n".join(file.read_text() for file in COMPOSE.glob("*.yaml"))
    limits = [line for line in text.splitlines() if "limits: {" in line]
    fixed = [line for line in limits if len(container_limits.LIMIT.findall(line)) != 2]
    assert len(fixed) == 1, "only the one-shot otel-collector-volume has fixed limits"


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ("WORKER_MEMORY=lots", "at least"),
        ("WORKER_MEMORY=0m", "at least"),
        ("WORKER_MEMORY=-1g", "at least"),
        ("WORKER_MEMORY=1g\nWORKER_CONCURRENCY=16", "at least 2560m with this WORKER_CONCURRENCY"),
        ("REDIS_MEMORY=128m", "at least 256m"),
        ("WORKERS_MEMORY=8g", "WORKER_MEMORY"),
        ("WORKER_PIDS=10", "1024 or more"),
        ("WORKER_CONCURRENCY=0", "1 to 64"),
        ("WORKER_CONCURRENCY=many", "1 to 64"),
    ],
)
def test_invalid_limit_is_refused_with_its_valid_values(project, line, takes):
    project.env_file.write_text(line + "\n")
    with pytest.raises(StackError) as refused:
        settings_file.read(project)
    assert takes in refused.value.hint
    assert refused.value.where.endswith("line 1")


def test_limit_beyond_the_machine_is_refused(project):
    settings = settings_file.read(project)
    container_limits.check_machine(project, settings | {"WORKER_MEMORY": "4g"}, 16 * GIB)
    with pytest.raises(StackError, match=r"PROMETHEUS_MEMORY=32g: .*16\.0 GiB"):
        container_limits.check_machine(project, settings | {"PROMETHEUS_MEMORY": "32g"}, 16 * GIB)
    with pytest.raises(StackError, match=r"2 workers of 9g: .*16\.0 GiB"):
        container_limits.check_machine(project, settings | {"WORKER_MEMORY": "9g"}, 16 * GIB)


def test_summary_states_memory_per_task_and_warns_of_too_much():
    settings = {"WORKER_REPLICAS": "2", "WORKER_MEMORY": "4096m", "WORKER_CONCURRENCY": "8"}
    assert "448 MiB for a task" in container_limits.summary(settings, 15 * GIB, 24 * GIB)
    assert "Lower WORKER_MEMORY" not in container_limits.summary(settings, 15 * GIB, 24 * GIB)
    assert "Lower WORKER_MEMORY" in container_limits.summary(settings, 15 * GIB, 8 * GIB)


def test_total_counts_every_instance_and_no_one_shot():
    model = compose_model()
    services = model["services"]
    long_running = {name: service for name, service in services.items() if name not in ONE_SHOTS}
    assert container_limits.total(model) == container_limits.total({"services": long_running})
    one_worker_less = {
        **long_running,
        "worker": {**long_running["worker"], "deploy": {**long_running["worker"]["deploy"], "replicas": 1}},
    }
    assert container_limits.total(model) - container_limits.total({"services": one_worker_less}) == 4 * GIB


ANONYMOUS, OTHERS, NAMED = "a" * 64, "b" * 64, "airflow-ha_airflow-logs"


def test_anonymous_volumes_of_removed_containers_are_removed(docker):
    docker.answer("ps --all", out="one")
    docker.answer("inspect", out=json.dumps([{"Mounts": [{"Name": ANONYMOUS}, {"Name": NAMED}, {"Type": "bind"}]}]))
    docker.answer("volume ls", out=f"{ANONYMOUS}\n{OTHERS}\n{NAMED}\n")
    with compose.without_leftover_volumes("airflow-ha"):
        assert not any("volume" in call for call in docker.calls())
    assert docker.calls()[-1] == ["volume", "rm", ANONYMOUS]


def test_anonymous_volumes_in_use_stay(docker):
    docker.answer("ps --all", out="one")
    docker.answer("inspect", out=json.dumps([{"Mounts": [{"Name": ANONYMOUS}]}]))
    docker.answer("volume ls", out=f"{OTHERS}\n")
    with compose.without_leftover_volumes("airflow-ha"):
        pass
    assert not any("rm" in call for call in docker.calls())
