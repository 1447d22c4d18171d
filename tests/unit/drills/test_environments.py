"""A drill on a stock Airflow has the same fault, if the stock Airflow has the target."""

from __future__ import annotations

import yaml

from ops.drills import environments
from ops.drills.catalogue import DRILLS, Drill, Target, all_nodes, one_instance, primary, replica
from ops.project import ROOT
from ops.stock_airflow import StockProject

STOCK = StockProject(root=ROOT, state=ROOT).compose_directory / "compose.yaml"


def drill(*targets: Target) -> Drill:
    return Drill("x", targets, "kill", 60, "after revert", 30, alert="RedisDown")


def test_stock_services_are_in_the_stock_compose_file():
    assert set(environments.STOCK_SERVICES.values()) <= yaml.safe_load(STOCK.read_text())["services"].keys()


def test_stock_drill_has_each_target_once_and_no_promises():
    targets = (*primary("patroni"), *all_nodes("redis"), *one_instance("gateway"), *one_instance("api-server"))
    stock = environments.stock_drill(drill(*targets))
    assert stock.targets == (Target("postgres"), Target("redis", None), Target("airflow-apiserver"))
    assert (stock.fault, stock.duration, stock.measure, stock.alert) == ("kill", 60, "after revert", None)


def test_drill_without_stock_target_cannot_be_compared():
    assert environments.exists_on_stock(drill(*one_instance("worker")))
    assert not environments.exists_on_stock(drill(*replica("patroni")))
    assert not environments.exists_on_stock(drill(*one_instance("sentinel-1"), *one_instance("worker")))


def test_every_stock_service_is_a_target_of_a_drill():
    compared = {target.service for each in DRILLS if environments.exists_on_stock(each) for target in each.targets}
    assert compared == set(environments.STOCK_SERVICES)
