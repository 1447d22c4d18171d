"""The drills strike everything that runs, and what they promise can be seen."""

from __future__ import annotations

import re

import yaml

from ops.commands.test import SUITES
from ops.drills import faults
from ops.drills.catalogue import DRILLS, Drill, nodes, one, primary, replica
from ops.project import ROOT
from tests.unit.compose.model import ONE_SHOTS, compose_model

SERVICES = compose_model()["services"]
NOT_STRUCK = {
    "flower": "shows, and is asked by nobody",
    "slack-stub": "stands for Slack, and hears what the drills are judged by",
    "cadvisor": "only its own figures are missing; the alarm `telemetry`",
    "postgres-exporter": "as cadvisor",
    "redis-exporter": "as cadvisor",
    "jaeger": "only where it can be pulled",
    "grafana": "only where it can be pulled",
}


def family(service: str) -> str:
    """A service without the number of one of several."""
    return re.sub(r"-\d$", "", service)


def test_every_drill_has_a_name_of_its_own():
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)


def test_every_service_is_struck_or_it_is_said_why_not():
    struck = {family(service) for drill in DRILLS for service in drill.services}
    assert {family(service) for service in SERVICES} - ONE_SHOTS == struck | NOT_STRUCK.keys()
    assert not struck & NOT_STRUCK.keys()


def test_every_victim_is_a_service():
    assert {service for drill in DRILLS for service in drill.services} <= SERVICES.keys()


def test_every_kind_of_fault_is_made():
    assert {drill.fault for drill in DRILLS} == set(faults.MEANING)


def test_every_alert_of_a_drill_is_one_of_the_rules():
    known = {
        rule["alert"]
        for file in (ROOT / "alerting/rules").glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    expected = {alert for drill in DRILLS for alert in (drill.alert, *drill.may_alert) if alert}
    assert expected <= known


def test_an_alert_is_promised_only_for_faults_that_last_until_it_comes():
    assert all(drill.hold >= 60 for drill in DRILLS if drill.alert)


def test_what_every_run_holds_needs_the_replicated_stack_only():
    every_run = [drill for drill in DRILLS if drill.in_every_run]
    assert every_run
    assert not any(drill.of_single_nodes for drill in every_run)
    assert ["tests/resilience"] in SUITES.values()


def test_drills_of_single_nodes_are_those_that_the_replicated_stack_does_not_have():
    for drill in DRILLS:
        profiles = [SERVICES[service].get("profiles", []) for service in drill.services]
        assert drill.of_single_nodes == (["data"] in profiles), drill.name


def test_a_worker_is_frozen_and_cut_off_for_longer_than_a_token_is_accepted():
    settings = SERVICES["execution-api"]["environment"]
    lifetime = float(settings.get("AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME", 600))
    accepted = lifetime + float(settings["AIRFLOW__API_AUTH__JWT_LEEWAY"])
    longer = {drill.fault for drill in DRILLS if drill.services == ("worker",) and drill.hold > accepted + 60}
    assert longer == {"freeze", "cut"}


def test_the_sentence_says_who_is_struck_and_for_how_long():
    host = (*primary("patroni"), *replica("redis"), *one("scheduler"), *one("etcd-1"))
    assert Drill("x", host, "crash", 0, "interruption", 5).sentence == (
        "crash the Postgres primary + a Redis replica + one scheduler + etcd-1"
    )
    gone = Drill("x", (*nodes("redis"), *one("redis")), "kill", 60, "interruption", 5)
    assert gone.sentence == "kill all of Redis + the single Redis for 60 s"
    assert Drill("x", (), "starve", 300, "after return", 5).sentence == "starve the machine for 300 s"


def test_the_machine_is_starved_by_one_container_that_ends_by_itself(monkeypatch):
    """It must leave exactly the rest to the others, and be gone when the drill is over or dead."""
    asked: list[tuple[str, ...]] = []

    def docker(*arguments: str) -> str:
        asked.append(arguments)
        return "4\n" if arguments[0] == "info" else "burner\n"

    monkeypatch.setattr(faults.compose, "docker", docker)
    heal = faults.strike("starve", [], "an-image")
    _, run = asked
    assert {"--rm", "--cpus=3.60", "--cpu-shares=262144", "an-image"} <= set(run)
    assert f"seq 4); do (while :; do :; done) & done; sleep {faults.LONGEST_STARVATION}" in run[-1]
    assert max(drill.hold for drill in DRILLS if drill.fault == "starve") < faults.LONGEST_STARVATION
    heal()
    assert asked[-1] == ("rm", "--force", "--volumes", "burner")
