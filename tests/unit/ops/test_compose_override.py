"""The operator's compose.override.yaml is taken as compose takes it, and its worker services scale and are expected."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import yaml

from ops import (
    compose,
    compose_override,
    scaling,
    settings_file,
    worker_slots,
)
from ops.errors import StackError
from ops.observability import generated_config
from ops.project import ROOT
from ops.scaling import parse_scale

HAS_COMPOSE = (
    bool(shutil.which("docker"))
    and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
)
EXAMPLE = ROOT / "compose/compose.override.example.yaml"


@pytest.fixture
def example(project):
    """A stack with the example's worker service."""
    shutil.copy(EXAMPLE, project.state / "compose.override.yaml")
    return project


def override(project, text):
    (project.state / "compose.override.yaml").write_text(text)
    return compose_override.own_workers(project)


def expected(project):
    text = (project.generated / "rules/wanted.yaml").read_text()
    (group,) = yaml.safe_load(text)["groups"]
    return {rule["labels"]["component"]: rule["expr"] for rule in group["rules"] if "labels" in rule}


@pytest.mark.parametrize("name", ["compose.override.yaml", "compose.override.yml"])
def test_an_override_is_a_file_of_every_compose_command(project, name):
    assert compose.command(project, "ps").count(f"--file={project.state / name}") == 0
    (project.state / name).write_text("services: {}\n")
    line = compose.command(project, "ps")
    files = [part for part in line if part.startswith("--file=")]
    assert files == [f"--file={ROOT}/compose/compose.yaml", f"--file={project.state / name}"]


@pytest.mark.skipif(not HAS_COMPOSE, reason="no docker compose, which reads files without a daemon")
def test_the_example_is_a_worker_of_its_own_queue(example):
    images = "".join(f"{name}=x:1\n" for name in ("AIRFLOW_IMAGE", "GATEWAY_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE"))
    example.env_file.write_text(images + "WORKER_GPU_REPLICAS=3\nCOMPOSE_PROFILES=data\n")
    rendered = subprocess.run(
        compose.command(example, "config", "--format=json"), capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    services = json.loads(rendered.stdout)["services"]
    own, worker = services["worker-gpu"], services["worker"]
    assert own["command"] == ["--queues", "gpu"]
    assert worker["command"] == ["--queues", "default"]
    assert own["deploy"]["replicas"] == 3
    same = (
        "entrypoint",
        "image",
        "networks",
        "secrets",
        "volumes",
        "healthcheck",
        "depends_on",
        "read_only",
        "cap_drop",
    )
    assert {key: own[key] for key in same} == {key: worker[key] for key in same}
    assert own["deploy"]["resources"] == worker["deploy"]["resources"]


def test_the_number_of_an_own_worker_is_kept_in_env_and_expected(example):
    settings = settings_file.read(example)
    assert settings["WORKER_GPU_REPLICAS"] == "1"
    generated_config.write(example, settings | {"WORKER_GPU_REPLICAS": "2"})
    assert expected(example)["worker-gpu"] == "vector(2)"
    assert expected(example)["worker"] == "vector(2)"


def test_an_own_worker_without_a_component_counts_as_worker(project):
    text = "services: { etl: { extends: { file: airflow.yaml, service: worker } } }"
    assert override(project, text) == {"etl": "worker"}
    generated_config.write(project, settings_file.read(project))
    assert expected(project)["worker"] == "vector(3)"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("", {}),
        ("services:\n", {}),
        ("services: { other: { image: x } }", {}),
        ("services: { worker: { mem_limit: 1g } }", {}),
        (
            "services: { w: { extends: worker, environment: [A=b=c, AIRFLOW_HA_COMPONENT=worker-w] } }",
            {"w": "worker-w"},
        ),
    ],
)
def test_services_that_are_no_workers_are_left_alone(project, text, own):
    assert override(project, text) == own


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: [a]", "cannot read"),
        ("a: b: c", "cannot read"),
        ("services: { w: { extends: worker, environment: { AIRFLOW_HA_COMPONENT: gpu } } }", "AIRFLOW_HA_COMPONENT"),
    ],
)
def test_an_override_that_is_not_valid_is_refused_with_its_name(project, text, reason):
    with pytest.raises(StackError, match=reason) as refused:
        override(project, text)
    assert refused.value.where.endswith("compose.override.yaml")


def test_an_own_worker_scales_by_its_name(example):
    own = compose_override.own_workers(example)
    assert parse_scale("worker-gpu=2", own) == ("worker-gpu", 2)
    with pytest.raises(StackError, match="cannot scale 'worker-cpu'"):
        parse_scale("worker-cpu=2", own)


def test_a_number_that_does_not_follow_env_is_refused():
    model = {"services": {"worker-gpu": {"deploy": {"replicas": 2}}}}
    scaling.refuse_fixed_numbers(model, {"worker-gpu": 2})
    with pytest.raises(StackError, match="WORKER_GPU_REPLICAS"):
        scaling.refuse_fixed_numbers(model, {"worker-gpu": 3})


def worker(replicas: int, concurrency: int) -> dict[str, object]:
    return {
        "entrypoint": ["airflow", "celery", "worker"],
        "environment": {"AIRFLOW__CELERY__WORKER_CONCURRENCY": str(concurrency)},
        "deploy": {"replicas": replicas},
    }


@pytest.mark.parametrize(("parallelism", "told"), [(16, False), (10, False), (9, True)])
def test_slots_that_schedulers_cannot_fill_are_told(parallelism, told):
    scheduler = {"environment": {"AIRFLOW__CORE__PARALLELISM": str(parallelism)}, "deploy": {"replicas": 2}}
    flower = {**worker(1, 8), "entrypoint": ["airflow"], "command": ["celery", "flower"]}
    services = {"scheduler": scheduler, "worker": worker(2, 8), "worker-gpu": worker(2, 2), "flower": flower}
    said = worker_slots.shortage({"services": services})
    assert (said is not None) == told
    assert not told or "PARALLELISM=10" in str(said)
