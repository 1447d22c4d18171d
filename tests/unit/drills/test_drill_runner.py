"""The course of one drill, on a simulated stack."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ops import waiting
from ops.drills import runner
from ops.drills.catalogue import LOAD, Drill, one_instance, primary, replica
from ops.drills.evaluate import Outcome
from ops.drills.ledger import Entry
from ops.errors import StackError
from ops.project import ROOT, Project

PROJECT = Project(ROOT, ROOT / "compose")
SETTINGS = {"COMPOSE_PROJECT_NAME": "x", "POSTGRES_IMAGE": "postgres"}
REPLICA = Drill("replica", replica("patroni"), "crash", healthy_within=0.5)
PRIMARY = Drill("primary", primary("patroni"), "crash")
STARVED = Drill("starved", (), "starve", 0, "after revert", forbids_container_exits=True)
LAGGING = Drill("lagging", primary("patroni"), "kill", lagging=replica("patroni"))


def tier(first: str, second: str) -> list[dict]:
    """Return two nodes of Postgres and three of Redis."""
    redis = [("redis-1", "primary"), ("redis-2", "replica"), ("redis-3", "replica")]
    return [
        {"service": service, "role": role, "state": "running", "lag_bytes": None}
        for service, role in [("patroni-1", first), ("patroni-2", second), *redis]
    ]


BEFORE, SWITCHED = tier("primary", "sync replica"), tier("sync replica", "primary")
OUT_OF_SYNC = tier("primary", "replica")


class Stack:
    """A simulated stack: its services, its roles before and after the fault, the load's run and its ledger."""

    def __init__(self) -> None:
        self.services = ["patroni-1", "patroni-2"]
        self.members_after = BEFORE
        self.run_states = ["success"]
        self.steps: list[str] = []
        self.container_exits: list[str] = []
        self.is_injected = False

    # The ledger
    container = "ledger"

    def now(self) -> float:
        return 5.0

    def entries(self, run: str) -> list[Entry]:
        tasks = [("short", index, index) for index in range(int(LOAD["short"]))]
        tasks += [("long", index, 45) for index in range(int(LOAD["long"]))]
        return [
            Entry(task, index, 1, event, "h", at)
            for task, index, end in tasks
            for event, at in (("start", 0.0), ("end", float(end)))
        ]

    # Airflow's API
    def trigger(self, dag_id, conf):
        self.steps.append("trigger")
        self.load = conf
        return SimpleNamespace(run_id="r")

    def wait_for(self, run, report, timeout):
        return SimpleNamespace(state=self.run_states[0])

    def run(self, dag_id, run_id):
        return SimpleNamespace(state=self.run_states[-1])

    # Docker and the data tier
    def inject(self, kind, containers, image=""):
        self.steps.append(f"{kind} {', '.join(containers)}")
        self.is_injected = True
        return lambda: self.steps.append("revert")

    @contextmanager
    def endings(self, name):
        yield lambda: self.container_exits

    def members(self, name):
        return self.members_after if self.is_injected else BEFORE


@pytest.fixture
def stack(monkeypatch):
    stack = Stack()
    instances = {
        "patroni-1": [SimpleNamespace(id="one", suspended_tasks=0)],
        "patroni-2": [SimpleNamespace(id="two", suspended_tasks=0)],
    }
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(runner.compose, "config", lambda project: {"services": stack.services})
    monkeypatch.setattr(runner.compose, "instances", lambda name: instances)
    monkeypatch.setattr(runner.compose, "endings", stack.endings)
    monkeypatch.setattr(runner, "all_ready", lambda model: True)
    monkeypatch.setattr(runner.data_tier, "members", stack.members)
    monkeypatch.setattr(runner.slack_stub, "is_active", lambda settings: False)
    monkeypatch.setattr(runner.faults, "inject", stack.inject)
    return stack


def run(stack: Stack, drill: Drill = REPLICA) -> Outcome:
    environment = runner.Environment(PROJECT, SETTINGS, api=stack, ledger=stack, report=lambda _: None)
    return runner.run_drill(drill, environment)


def test_fault_is_injected_under_load_and_reverted(stack):
    assert run(stack).broken == ()
    assert stack.steps == ["trigger", "crash two", "revert"]


def test_promotion_after_the_loss_of_a_replica_breaks_a_promise(stack):
    stack.members_after = SWITCHED
    [broken] = run(stack).broken
    assert "patroni-2" in broken


def test_promotion_after_the_loss_of_a_primary_is_allowed(stack):
    stack.members_after = SWITCHED
    assert run(stack, PRIMARY).broken == ()


def test_stack_with_a_replica_out_of_sync_is_not_healthy(stack):
    stack.members_after = OUT_OF_SYNC
    outcome = run(stack)
    assert outcome.healthy_after is None
    assert len(outcome.broken) == 1


def test_success_lost_with_the_old_primary_breaks_a_promise(stack):
    stack.run_states = ["success", "running"]
    [broken] = run(stack).broken
    assert "running" in broken


def test_run_that_ends_too_late_is_no_success(stack, monkeypatch):
    def late(run, report, timeout):
        raise StackError("the run has not ended")

    monkeypatch.setattr(stack, "wait_for", late)
    [broken] = run(stack).broken
    assert "running" in broken


def test_lagging_replica_is_frozen_until_the_fault_is_injected(stack, monkeypatch):
    roles = iter([BEFORE, BEFORE, BEFORE, BEFORE, OUT_OF_SYNC])
    monkeypatch.setattr(runner.data_tier, "members", lambda name: next(roles, BEFORE))
    monkeypatch.setattr(stack, "now", lambda: -1.0)
    run(stack, LAGGING)
    assert stack.steps == ["trigger", "freeze two", "kill one", "revert", "revert"]


@pytest.mark.parametrize(
    ("is_synchronous", "now"), [(True, -1.0), (False, 200.0)], ids=["primary waits for it", "nothing is committed"]
)
def test_replica_without_lag_stops_the_drill_and_is_unfrozen(stack, monkeypatch, is_synchronous, now):
    monkeypatch.setattr(runner, "LAG_SECONDS", 0.05)
    monkeypatch.setattr(stack, "now", lambda: now)
    monkeypatch.setattr(runner.data_tier, "has_synchronous", lambda members: is_synchronous)
    with pytest.raises(StackError):
        run(stack, LAGGING)
    assert stack.steps == ["trigger", "freeze two", "revert"]


def test_without_replicas_no_roles_are_queried(stack, monkeypatch):
    stack.services = ["scheduler"]
    monkeypatch.setattr(runner.data_tier, "members", lambda name: pytest.fail("the stack has no roles"))
    assert run(stack, Drill("x", one_instance("patroni-1"), "crash")).broken == ()


def test_drill_with_an_alert_waits_until_no_other_inhibits_it(stack, monkeypatch):
    settled = iter([False, True])
    monkeypatch.setattr(runner.slack_stub, "is_active", lambda settings: True)
    monkeypatch.setattr(runner.slack_stub, "messages", lambda settings: [])
    monkeypatch.setattr(runner, "RESOLVED_SECONDS", 0.05)
    monkeypatch.setattr(runner, "is_settled", lambda settings: stack.steps.append("settled?") or next(settled))
    monkeypatch.setattr(runner, "pending_alerts", lambda settings: frozenset())
    [broken] = run(stack, Drill("gone", one_instance("patroni-1"), "kill", alert="PostgresDown")).broken
    assert "PostgresDown" in broken
    assert stack.steps[:3] == ["settled?", "settled?", "trigger"]


def test_starved_machine_has_no_target_container(stack):
    assert run(stack, STARVED).broken == ()
    assert stack.steps == ["trigger", "starve ", "revert"]


def test_container_exit_breaks_a_promise_only_where_forbidden(stack):
    stack.container_exits = ["x-worker-1: oom", "x-worker-1: die"]
    [broken] = run(stack, STARVED).broken
    assert "x-worker-1: oom" in broken
    assert run(stack).broken == ()


def test_load_has_the_drills_parameters(stack):
    run(stack, STARVED)
    assert stack.load == {**STARVED.load, "ledger": "ledger"}


def test_replaced_containers_are_replaced_back(stack, monkeypatch):
    def replace(project, targets, report):
        stack.steps.append("replace")
        return lambda: stack.steps.append("back")

    monkeypatch.setattr(runner.image_change, "replace_containers", replace)
    outcome = run(stack, Drill("replaced", (), "replace"))
    assert stack.steps == ["trigger", "replace", "back"]
    assert outcome.sentence == "replace every Airflow container"
