"""The catalogue's targets cover every service, and its promises can be checked."""

from __future__ import annotations

import re

import pytest
import yaml

from ops.commands.test import SUITES
from ops.drills import faults
from ops.drills.catalogue import DRILLS, LOAD, Drill, all_nodes, one_instance, primary, replica
from ops.project import ROOT
from tests.unit.compose.model import ONE_SHOTS, compose_model

SERVICES = compose_model()["services"]
NO_TARGET = {
    "pages": "drills read Prometheus and the Slack stub through it",
    "flower": "a UI that no other service asks",
    "slack-stub": "stands for Slack and receives the notifications that drills read",
    "maintenance": "no other service waits for it; a crash of it is a test of images",
    "cadvisor": "only its own metrics are missing; the alert drill `telemetry`",
    "postgres-exporter": "as cadvisor",
    "redis-exporter": "as cadvisor",
    "jaeger": "runs only where it can be pulled",
    "grafana": "runs only where it can be pulled",
    "backup": "off by default; tests/images/test_backup_ha.py has a failover",
    "backup-files": "as backup",
}
"""Services without a drill, and why."""


def family(service: str) -> str:
    """Return a service's name without the number of its instance."""
    return re.sub(r"-\d$", "", service)


def test_every_drill_has_its_own_name():
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)


def test_every_service_is_a_target_or_has_a_reason_not_to_be():
    targets = {family(service) for drill in DRILLS for service in drill.required_services}
    assert {family(service) for service in SERVICES} - ONE_SHOTS == targets | NO_TARGET.keys()
    assert not targets & NO_TARGET.keys()


def test_every_target_is_a_service():
    assert {service for drill in DRILLS for service in drill.required_services} <= SERVICES.keys()


def test_every_kind_of_fault_has_a_drill():
    assert {drill.fault for drill in DRILLS} == set(faults.MEANING)


def test_every_alert_of_a_drill_has_a_rule():
    rules = {
        rule["alert"]
        for file in (ROOT / "alerting/rules").glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {alert for drill in DRILLS for alert in (drill.alert, *drill.allowed_alerts) if alert} <= rules


def test_fault_with_a_promised_alert_lasts_until_it_fires():
    assert all(drill.duration >= 60 for drill in DRILLS if drill.alert)


def test_drills_of_every_run_need_the_replicated_stack_only():
    every_run = [drill for drill in DRILLS if drill.in_every_run]
    assert every_run
    assert not any(drill.targets_single_nodes for drill in every_run)
    assert ["tests/resilience"] in SUITES.values()


def test_drills_of_single_nodes_are_those_of_the_profile_data():
    for drill in DRILLS:
        profiles = [SERVICES[service].get("profiles", []) for service in drill.required_services]
        assert drill.targets_single_nodes == (["data"] in profiles), drill.name


def test_worker_is_frozen_and_cut_for_longer_than_a_token_lives():
    settings = SERVICES["execution-api"]["environment"]
    lifetime = float(settings.get("AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME", 600))
    accepted = lifetime + float(settings["AIRFLOW__API_AUTH__JWT_LEEWAY"])
    longer = {
        drill.fault for drill in DRILLS if drill.required_services == ("worker",) and drill.duration > accepted + 60
    }
    assert longer == {"freeze", "cut"}


def test_sentence_has_the_targets_and_the_duration():
    host = (*primary("patroni"), *replica("redis"), *one_instance("scheduler"), *one_instance("etcd-1"))
    assert Drill("x", host, "crash").sentence == (
        "crash the Postgres primary + a Redis replica + one scheduler + etcd-1"
    )
    gone = Drill("x", (*all_nodes("redis"), *one_instance("redis")), "kill", 60)
    assert gone.sentence == "kill all of Redis + the single Redis for 60 s"
    assert Drill("x", (), "starve", 300).sentence == "starve the machine for 300 s"


@pytest.mark.parametrize(("duration", "seconds"), [(0, LOAD["long_seconds"]), (300, 300)])
def test_load_lasts_as_long_as_the_machine_is_starved(duration, seconds):
    assert Drill("starved", (), "starve", duration).load["long_seconds"] == seconds
    assert Drill("frozen", one_instance("worker"), "freeze", duration).load == LOAD


def test_cpu_burner_leaves_the_rest_and_ends_by_itself(monkeypatch):
    commands: list[tuple[str, ...]] = []

    def docker(*arguments: str) -> str:
        commands.append(arguments)
        return "4\n" if arguments[0] == "info" else "burner\n"

    monkeypatch.setattr(faults.compose, "docker", docker)
    revert = faults.inject("starve", [], "an-image")
    _, run = commands
    assert {"--rm", "--cpus=3.60", "--cpu-shares=262144", "an-image"} <= set(run)
    assert f"seq 4); do (while :; do :; done) & done; sleep {faults.LONGEST_STARVATION}" in run[-1]
    assert max(drill.duration for drill in DRILLS if drill.fault == "starve") < faults.LONGEST_STARVATION
    revert()
    assert commands[-1] == ("rm", "--force", "--volumes", "burner")
