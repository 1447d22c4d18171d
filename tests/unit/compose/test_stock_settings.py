"""The stock stack has the official settings, the same images and sizes, and no code of this project."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from ops import stock_airflow
from ops.stock_airflow import IMAGES, OVERRIDES
from tests.unit.compose.model import COMPOSE, compose_model, interpolated

FILE = COMPOSE / "stock/compose.yaml"
TEXT = FILE.read_text()
SERVICES = json.loads(json.dumps(yaml.safe_load(interpolated(TEXT))))["services"]
AIRFLOW = {name: service for name, service in SERVICES.items() if name.startswith("airflow-")}
OFFICIAL_SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__AUTH_MANAGER",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION",
    "AIRFLOW__CORE__LOAD_EXAMPLES",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
}
"""The settings of the official compose file, which shares its two other keys by a file."""
FOR_OUR_IMAGES = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"}
"""Airflow would derive the driver asyncpg, which the images do not have."""


def test_its_first_line_warns_against_production_use():
    assert TEXT.startswith("# A yardstick, not something to run in production")


@pytest.mark.parametrize("name", AIRFLOW)
def test_airflow_has_exactly_the_official_files_settings(name):
    settings = {key for key in AIRFLOW[name]["environment"] if key.startswith("AIRFLOW")}
    settings -= {"AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__CELERY__WORKER_CONCURRENCY"}
    assert settings - FOR_OUR_IMAGES == OFFICIAL_SETTINGS


def test_a_worker_has_airflows_default_of_slots():
    from airflow.configuration import conf

    default = conf.get_default_value("celery", "worker_concurrency")
    assert SERVICES["airflow-worker"]["environment"]["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == int(default)


def test_nothing_of_ours_is_loaded_in_it():
    assert "airflow_ha" not in json.dumps(SERVICES)
    assert "restart-when-unhealthy.sh" not in json.dumps(SERVICES)


def test_its_images_are_the_stacks_own():
    assert {service["image"] for service in SERVICES.values()} == set(IMAGES)
    assert set(IMAGES) <= {service["image"] for service in compose_model()["services"].values()}


def test_it_has_as_many_schedulers_and_workers_as_the_stack():
    for name in ("scheduler", "worker"):
        ours = compose_model()["services"][name]["deploy"]["replicas"]
        assert int(SERVICES[f"airflow-{name}"]["deploy"]["replicas"]) == ours


def test_overrides_are_the_variables_with_a_default():
    assert set(re.findall(r"\$\{(\w+):-", TEXT)) == set(OVERRIDES)


def test_it_publishes_one_fixed_port_on_loopback():
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "airflow-apiserver": ["127.0.0.1:STOCK_PORT:8080"]
    }


def test_its_passwords_are_not_in_its_file(monkeypatch):
    needed = set(re.findall(r"\$\{(\w+):\?", TEXT))
    state = COMPOSE / "nowhere"
    images = dict.fromkeys(IMAGES, "an-image:1")
    monkeypatch.setattr(stock_airflow, "free_port", lambda: 1)
    first, second = (stock_airflow.stock_settings({"COMPOSE_PROJECT_NAME": "x", **images}, state, {}) for _ in range(2))
    assert needed == set(first)
    assert first["COMPOSE_PROJECT_NAME"] == "x-stock"
    assert {key for key in first if first[key] != second[key]} == {
        "STOCK_JWT_SECRET",
        "STOCK_SECRET_KEY",
        "STOCK_PASSWORD",
    }
