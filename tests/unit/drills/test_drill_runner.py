"""The course of one drill, on a stack that is only told of."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops import waiting
from ops.drills import runner
from ops.drills.catalogue import Drill, one, primary, replica
from ops.drills.ledger import Entry
from ops.errors import StackError
from ops.project import ROOT, Project

PROJECT = Project(ROOT, ROOT / "compose")
SETTINGS = {"COMPOSE_PROJECT_NAME": "x", "POSTGRES_IMAGE": "postgres"}
REPLICA = Drill("replica", replica("patroni"), "crash", 0, "interruption", 5, whole_again=0.5)


def tier(first: str, second: str) -> list[dict]:
    """Two nodes of Postgres and three of Redis."""
    redis = [("redis-1", "primary"), ("redis-2", "replica"), ("redis-3", "replica")]
    return [
        {"service": service, "role": role, "state": "running", "lag_bytes": None}
        for service, role in [("patroni-1", first), ("patroni-2", second), *redis]
    ]


BEFORE, SWITCHED = tier("primary", "sync replica"), tier("sync replica", "primary")
BEHIND = tier("primary", "replica")


class Stage:
    """What a drill meets: services, roles before and after the fault, the load's run and its ledger."""

    def __init__(self) -> None:
        self.services = ["patroni-1", "patroni-2"]
        self.after = BEFORE
        self.states = ["success"]
        self.done: list[str] = []
        self.ended: list[str] = []
        self.struck = False

    # The ledger's part.
    container = "ledger"

    def now(self) -> float:
        return 5.0

    def entries(self, run: str) -> list[Entry]:
        lines = [("short", number, number) for number in range(int(runner.LOAD["short"]))]
        lines += [("long", number, 45) for number in range(int(runner.LOAD["long"]))]
        return [
            Entry(task, number, 1, event, "h", at)
            for task, number, end in lines
            for event, at in (("start", 0.0), ("end", float(end)))
        ]

    # Airflow's.
    def trigger(self, dag_id, conf):
        self.done.append("trigger")
        self.load = conf
        return SimpleNamespace(run_id="r")

    def wait_for(self, run, report, timeout):
        return SimpleNamespace(state=self.states[0])

    def run(self, dag_id, run_id):
        return SimpleNamespace(state=self.states[-1])

    # The fault.
    def strike(self, kind, victims, image=""):
        self.done.append(f"{kind} {', '.join(victims)}")
        self.struck = True
        return lambda: self.done.append("heal")

    @contextmanager
    def endings(self, name):
        yield lambda: self.ended

    def members(self, name):
        return self.after if self.struck else BEFORE


@pytest.fixture
def stage(monkeypatch):
    made = Stage()
    instances = {
        "patroni-1": [SimpleNamespace(id="one", suspended_tasks=0)],
        "patroni-2": [SimpleNamespace(id="two", suspended_tasks=0)],
    }
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(runner.compose, "config", lambda project: {"services": made.services})
    monkeypatch.setattr(runner.compose, "instances", lambda name: instances)
    monkeypatch.setattr(runner.compose, "endings", made.endings)
    monkeypatch.setattr(runner, "all_ready", lambda model: True)
    monkeypatch.setattr(runner.data_tier, "members", made.members)
    monkeypatch.setattr(runner.slack_stub, "is_there", lambda settings: False)
    monkeypatch.setattr(runner.faults, "strike", made.strike)
    return made


def held(stage: Stage, drill: Drill = REPLICA) -> runner.Outcome:
    return runner.conduct(drill, PROJECT, SETTINGS, stage, stage, lambda _: None)


def test_the_fault_strikes_under_the_load_and_is_taken_back(stage):
    assert held(stage).broken == ()
    assert stage.done == ["trigger", "crash two", "heal"]


def test_a_replica_that_takes_over_though_only_a_replica_died_is_a_broken_promise(stage):
    stage.after = SWITCHED
    assert held(stage).broken == ("patroni-2 took over without reason",)


def test_one_that_takes_over_for_its_primary_is_what_it_is_there_for(stage):
    stage.after = SWITCHED
    assert held(stage, Drill("primary", primary("patroni"), "crash", 0, "interruption", 5)).broken == ()


def test_the_stack_is_not_whole_while_a_replica_lacks_commits(stage):
    stage.after = BEHIND
    outcome = held(stage)
    assert outcome.whole_again is None
    assert any("a replica not in sync" in broken for broken in outcome.broken)


def test_a_success_that_is_gone_when_the_old_primary_is_back_is_a_broken_promise(stage):
    stage.states = ["success", "running"]
    assert held(stage).broken == ("the run is running",)


def test_a_run_that_ended_too_late_is_not_taken_for_a_success(stage, monkeypatch):
    def late(run, report, timeout):
        raise StackError("the run has not ended")

    monkeypatch.setattr(stage, "wait_for", late)
    assert held(stage).broken == ("the run is running",)


LAGGING = Drill("lagging", primary("patroni"), "kill", 0, "interruption", 5, behind=replica("patroni"))


def test_a_replica_is_frozen_until_its_primary_is_struck_and_lacks_what_was_committed_meanwhile(stage, monkeypatch):
    roles = iter([BEFORE, BEFORE, BEFORE, BEFORE, BEHIND])
    monkeypatch.setattr(runner.data_tier, "members", lambda name: next(roles, BEFORE))
    monkeypatch.setattr(stage, "now", lambda: -1.0)
    held(stage, LAGGING)
    assert stage.done == ["trigger", "freeze two", "kill one", "heal", "heal"]


@pytest.mark.parametrize(("now", "missing"), [(-1.0, "the primary goes on without"), (200.0, "commits that")])
def test_a_replica_that_has_everything_is_no_drill_and_thaws(stage, monkeypatch, now, missing):
    monkeypatch.setattr(runner, "WITHOUT_SECONDS", 0.05)
    monkeypatch.setattr(stage, "now", lambda: now)
    if now > 0:
        monkeypatch.setattr(runner.data_tier, "has_synchronous", lambda found: False)
    with pytest.raises(StackError, match=missing):
        held(stage, LAGGING)
    assert stage.done == ["trigger", "freeze two", "heal"]


def test_without_replicas_nobody_is_asked_for_roles(stage, monkeypatch):
    stage.services = ["scheduler"]
    monkeypatch.setattr(runner.data_tier, "members", lambda name: pytest.fail("there are none"))
    assert held(stage, Drill("x", one("patroni-1"), "crash", 0, "interruption", 5)).broken == ()


def test_an_alert_is_waited_for_only_when_no_earlier_one_mutes_it(stage, monkeypatch):
    asked = iter([False, True])
    monkeypatch.setattr(runner.slack_stub, "is_there", lambda settings: True)
    monkeypatch.setattr(runner.slack_stub, "messages", lambda settings: [])
    monkeypatch.setattr(runner, "ALERT_SECONDS", 0.05)
    monkeypatch.setattr(runner, "is_settled", lambda settings: stage.done.append("quiet?") or next(asked))
    monkeypatch.setattr(runner, "stirring", lambda settings: frozenset())
    gone = Drill("gone", one("patroni-1"), "kill", 0, "interruption", 5, alert="PostgresDown")
    assert held(stage, gone).broken == ("nobody was told: no PostgresDown",)
    assert stage.done[:3] == ["quiet?", "quiet?", "trigger"]


STARVED = Drill("starved", (), "starve", 0, "after return", 5, no_restarts=True)


def test_a_starved_machine_strikes_no_container_of_its_own(stage):
    assert held(stage, STARVED).broken == ()
    assert stage.done == ["trigger", "starve ", "heal"]


def test_a_container_that_ends_on_a_starved_machine_breaks_the_promise(stage):
    stage.ended = ["x-worker-1: oom", "x-worker-1: die"]
    assert held(stage, STARVED).broken == ("not every container lived through it: x-worker-1: oom, x-worker-1: die",)
    assert held(stage).broken == ()


def test_the_load_lasts_as_long_as_the_machine_is_starved(stage):
    held(stage, Drill("starved", (), "starve", 0, "after return", 5))
    assert stage.load["long_seconds"] == runner.LOAD["long_seconds"]
    assert runner.load_of(Drill("starved", (), "starve", 300, "after return", 5))["long_seconds"] == 300
