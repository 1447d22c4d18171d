"""compose.override.yaml has the same effect by hand and by ./ops/stack; its workers scale and are expected."""

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
from ops.project import ROOT, Project
from ops.scaling import parse_scale

HAS_COMPOSE = (
    bool(shutil.which("docker"))
    and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
)
EXAMPLE = ROOT / "compose/compose.override.example.yaml"
IMAGES = "".join(f"{name}=x:1\n" for name in ("AIRFLOW_IMAGE", "GATEWAY_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE"))
CHANGES = """
  scheduler:
    environment: {{ OWN: {name} }}
    cpu_shares: 77
  worker:
    volumes: ["/data:/data:ro"]
  own:
    image: own:1
    networks: [database]
"""
"""Additions to the example: changes of services that compose.yaml includes, and another service."""
needs_compose = pytest.mark.skipif(not HAS_COMPOSE, reason="no docker compose, which reads files without a daemon")


@pytest.fixture
def example(project):
    shutil.copy(EXAMPLE, project.state / "compose.override.yaml")
    return project


def override(project, text):
    (project.state / "compose.override.yaml").write_text(text)
    return compose_override.own_workers(project)


def expected(project):
    text = (project.generated / "rules/wanted.yaml").read_text()
    (group,) = yaml.safe_load(text)["groups"]
    return {rule["labels"]["component"]: rule["expr"] for rule in group["rules"] if "labels" in rule}


@pytest.mark.parametrize("name", compose_override.NAMES)
def test_an_override_is_a_file_of_every_compose_command(project, name):
    assert compose.command(project, "ps").count(f"--file={project.state / name}") == 0
    (project.state / name).write_text("services: {}\n")
    line = compose.command(project, "ps")
    files = [part for part in line if part.startswith("--file=")]
    assert files == [f"--file={ROOT}/compose/compose.yaml", f"--file={project.state / name}"]


@needs_compose
@pytest.mark.parametrize("names", [compose_override.NAMES, compose_override.NAMES[-1:], []])
def test_by_hand_and_by_stack_the_model_is_the_same(tmp_path, names):
    folder = tmp_path / "compose"
    shutil.copytree(ROOT / "compose", folder, ignore=shutil.ignore_patterns(".*", "secrets", "*.override.y*ml"))
    (folder / ".env").write_text(IMAGES + "WORKER_GPU_REPLICAS=3\nCOMPOSE_PROFILES=data,flower\n")
    for name in names:
        (folder / name).write_text(EXAMPLE.read_text() + CHANGES.format(name=name))
    stack = Project(root=tmp_path, state=folder)
    by_stack = compose.config(stack)
    by_hand = subprocess.run(
        ["docker", "compose", "config", "--format=json"],
        cwd=folder,
        env=compose.environment(stack),
        capture_output=True,
        check=True,
    )
    assert json.loads(by_hand.stdout) == by_stack
    services = by_stack["services"]
    assert {"own", "worker-gpu"} <= services.keys() or not names
    assert services["scheduler"].get("cpu_shares") == (77 if names else None)
    assert services["scheduler"]["environment"].get("OWN") == (names[0] if names else None)
    assert ("/data" in {volume["target"] for volume in services["worker"]["volumes"]}) is bool(names)


@needs_compose
def test_the_example_is_a_worker_of_its_own_queue(example):
    example.env_file.write_text(IMAGES + "WORKER_GPU_REPLICAS=3\nCOMPOSE_PROFILES=data\n")
    services = compose.config(example)["services"]
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


def test_replicas_of_an_own_worker_are_kept_and_expected(example):
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
def test_only_services_that_extend_worker_are_workers(project, text, own):
    assert override(project, text) == own


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: [a]", "cannot read"),
        ("a: b: c", "cannot read"),
        ("services: { w: { extends: worker, environment: { AIRFLOW_HA_COMPONENT: gpu } } }", "AIRFLOW_HA_COMPONENT"),
    ],
)
def test_an_invalid_override_is_refused_with_its_path(project, text, reason):
    with pytest.raises(StackError, match=reason) as refused:
        override(project, text)
    assert refused.value.where.endswith("compose.override.yaml")


def test_an_own_worker_scales_by_its_name(example):
    own = compose_override.own_workers(example)
    assert parse_scale("worker-gpu=2", own) == ("worker-gpu", 2)
    with pytest.raises(StackError, match="cannot scale 'worker-cpu'"):
        parse_scale("worker-cpu=2", own)


def test_replicas_that_ignore_env_are_refused():
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


@pytest.mark.parametrize(("parallelism", "is_short"), [(16, False), (10, False), (9, True)])
def test_slots_that_schedulers_cannot_fill_are_reported(parallelism, is_short):
    scheduler = {"environment": {"AIRFLOW__CORE__PARALLELISM": str(parallelism)}, "deploy": {"replicas": 2}}
    flower = {**worker(1, 8), "entrypoint": ["airflow"], "command": ["celery", "flower"]}
    services = {"scheduler": scheduler, "worker": worker(2, 8), "worker-gpu": worker(2, 2), "flower": flower}
    warning = worker_slots.shortage({"services": services})
    assert (warning is not None) == is_short
    assert not is_short or "PARALLELISM=10" in str(warning)
