"""How many instances are wanted, as Prometheus is told."""

from __future__ import annotations

import re

import pytest
import yaml

from ops.observability.expected_replicas import DEFAULT_REPLICAS, recorded, rules
from ops.project import ROOT
from ops.services import SCALABLE, replicas_variable


def wanted(settings):
    found = {}
    for group in yaml.safe_load(rules(settings))["groups"]:
        for rule in group["rules"]:
            found[rule.get("labels", {}).get("component") or rule["record"]] = rule["expr"]
    return found


def test_every_component_is_wanted_as_often_as_env_says():
    settings = {"WORKER_REPLICAS": "4", "SCHEDULER_REPLICAS": "3", "COMPOSE_PROFILES": "data,observability"}
    assert wanted(settings) == {
        "api-server": "vector(2)",
        "dag-processor": "vector(1)",
        "execution-api": "vector(2)",
        "scheduler": "vector(3)",
        "triggerer": "vector(1)",
        "worker": "vector(4)",
        "postgres_replicas_wanted": "vector(0)",
        "redis_replicas_wanted": "vector(0)",
    }


def test_replicas_of_the_data_tier_are_wanted_where_it_has_them():
    found = wanted({"COMPOSE_PROFILES": "data-ha,observability"})
    assert (found["postgres_replicas_wanted"], found["redis_replicas_wanted"]) == ("vector(1)", "vector(2)")


def test_a_component_that_is_scaled_to_nothing_is_not_wanted():
    assert wanted({"TRIGGERER_REPLICAS": "0"})["triggerer"] == "vector(0)"


def test_where_env_says_nothing_it_is_what_compose_takes():
    compose = (ROOT / "compose/airflow.yaml").read_text()
    in_compose = {
        service: int(re.search(rf"\$\{{{replicas_variable(service)}:-(\d+)\}}", compose)[1]) for service in SCALABLE
    }
    assert in_compose == DEFAULT_REPLICAS


def test_the_same_settings_give_the_same_text():
    assert rules({"WORKER_REPLICAS": "2", "A": "b"}) == rules({"A": "b"})


def test_what_is_no_number_is_refused_with_its_name():
    with pytest.raises(ValueError, match="WORKER_REPLICAS is 'many'"):
        rules({"WORKER_REPLICAS": "many"})


def test_the_names_are_known_to_those_who_ask():
    made = {rule["record"] for group in yaml.safe_load(rules({}))["groups"] for rule in group["rules"]}
    assert made == recorded()
