"""The rules that record the expected replicas."""

from __future__ import annotations

import re

import pytest
import yaml

from ops.observability.expected_replicas import DEFAULT_REPLICAS, recorded, rules
from ops.project import ROOT
from ops.services import SCALABLE, replicas_variable


def expected(settings):
    expressions = {}
    for group in yaml.safe_load(rules(settings))["groups"]:
        for rule in group["rules"]:
            expressions[rule.get("labels", {}).get("component") or rule["record"]] = rule["expr"]
    return expressions


def test_expected_replicas_are_those_of_the_settings():
    settings = {"WORKER_REPLICAS": "4", "SCHEDULER_REPLICAS": "3", "COMPOSE_PROFILES": "data,observability"}
    assert expected(settings) == {
        "api-server": "vector(2)",
        "dag-processor": "vector(1)",
        "execution-api": "vector(2)",
        "scheduler": "vector(3)",
        "triggerer": "vector(1)",
        "worker": "vector(4)",
        "postgres_replicas_wanted": "vector(0)",
        "redis_replicas_wanted": "vector(0)",
    }


def test_data_ha_expects_replicas_of_the_data_tier():
    data_ha = expected({"COMPOSE_PROFILES": "data-ha,observability"})
    assert (data_ha["postgres_replicas_wanted"], data_ha["redis_replicas_wanted"]) == ("vector(1)", "vector(2)")


def test_a_component_scaled_to_zero_expects_no_instance():
    assert expected({"TRIGGERER_REPLICAS": "0"})["triggerer"] == "vector(0)"


def test_bounds_of_autoscaling_are_recorded_where_it_is_on():
    of = expected({"WORKER_REPLICAS": "3", "WORKER_FLOOR": "2", "WORKER_CEILING": "6"})
    assert (of["airflow_ha_workers_floor"], of["airflow_ha_workers_ceiling"]) == ("vector(2)", "vector(6)")
    assert "airflow_ha_workers_ceiling" not in expected({"WORKER_FLOOR": "2"})


def test_other_services_of_the_component_count_for_its_bounds():
    text = rules({"WORKER_CEILING": "6", "WORKER_GPU_REPLICAS": "3"}, {"worker-gpu": "worker"})
    assert "vector(9)" in text.partition("airflow_ha_workers_ceiling")[2]


def test_default_replicas_are_those_of_compose():
    compose = (ROOT / "compose/airflow.yaml").read_text()
    in_compose = {
        service: int(re.search(rf"\$\{{{replicas_variable(service)}:-(\d+)\}}", compose)[1]) for service in SCALABLE
    }
    assert in_compose == DEFAULT_REPLICAS


def test_the_same_settings_give_the_same_text():
    assert rules({"WORKER_REPLICAS": "2", "A": "b"}) == rules({"A": "b"})


def test_a_number_of_replicas_that_is_none_is_refused():
    with pytest.raises(ValueError, match="WORKER_REPLICAS is 'many'"):
        rules({"WORKER_REPLICAS": "many"})


def test_recorded_names_are_those_of_the_rules():
    text = rules({"WORKER_CEILING": "4"})
    records = {rule["record"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    assert records == recorded()
