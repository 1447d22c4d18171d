"""The same fault, where it can be, on a stock Airflow."""

from __future__ import annotations

import yaml

from ops.drills import environments
from ops.drills.catalogue import DRILLS, Drill, Victim, nodes, one, primary, replica
from ops.project import ROOT
from ops.stock_airflow import StockProject

STOCK = StockProject(root=ROOT, state=ROOT).compose_directory / "compose.yaml"


def drill(*victims: Victim) -> Drill:
    return Drill("x", victims, "kill", 60, "after return", 30, alert="RedisDown")


def test_what_stands_for_a_service_is_in_the_stock_compose_file():
    assert set(environments.STOCK_SERVICES.values()) <= yaml.safe_load(STOCK.read_text())["services"].keys()


def test_a_drill_strikes_the_counterparts_once_each_and_promises_nothing():
    parts = (*primary("patroni"), *nodes("redis"), *one("gateway"), *one("api-server"))
    there = environments.on_its_services(drill(*parts))
    assert there.victims == (Victim("postgres"), Victim("redis", None), Victim("airflow-apiserver"))
    assert (there.fault, there.hold, there.measure, there.alert) == ("kill", 60, "after return", None)


def test_what_a_stock_airflow_does_not_have_cannot_be_compared():
    assert environments.has_stock(drill(*one("worker")))
    assert not environments.has_stock(drill(*replica("patroni")))
    assert not environments.has_stock(drill(*one("sentinel-1"), *one("worker")))


def test_everything_that_both_have_is_compared():
    compared = {victim.service for one in DRILLS if environments.has_stock(one) for victim in one.victims}
    assert compared == set(environments.STOCK_SERVICES)
