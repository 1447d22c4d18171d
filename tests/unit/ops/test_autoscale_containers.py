"""Workers start at once and drain beside the next steps; a step that cannot count or lock changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ops import compose, settings_file
from ops.autoscaling import task_counts, worker_containers
from ops.autoscaling.control_loop import ControlLoop, Options
from ops.autoscaling.decision import Demand
from ops.compose import Instance
from ops.errors import StackError
from ops.lock import stack_lock
from ops.observability import generated_config

WINDOW = 20.0
STEP = 5.0


class Drain:
    """A `docker stop` that ends when its worker has finished its tasks."""

    def __init__(self) -> None:
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


@dataclass
class Workers:
    """The containers of the service `worker`, in place of Docker, and one run of `autoscale`.

    Attributes:
        tasks: The tasks that are queued; None if they cannot be counted.
        lines: What the run reports.
        expected: The replicas that alerts expect, by each write of the rules.
        loads: How often Prometheus loaded the rules that a change wrote.
        locks: How often the stack's lock was taken.
    """

    project: Any
    containers: dict[str, Instance] = field(default_factory=dict)
    drains: dict[str, Drain] = field(default_factory=dict)
    graces: list[str] = field(default_factory=list)
    tasks: int | None = 0
    now: float = 0.0
    lines: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    loads: int = 0
    locks: int = 0
    loop: Any = None

    def add(self, state: str = "running") -> None:
        number = max((each.number for each in self.containers.values()), default=0) + 1
        identity = f"worker-{number}"
        self.containers[identity] = Instance(identity, state, "healthy", float(number), number=number)

    def step(self, seconds: float = STEP) -> None:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.loop.step(self.now)

    def end_drain(self, worker: str, code: int = 0) -> None:
        self.drains[worker].returncode = code
        if code == 0:
            self.containers[worker] = replace(self.containers[worker], state="exited")

    @property
    def names(self) -> list[str]:
        return sorted(self.containers)

    @property
    def replicas(self) -> int:
        return int(settings_file.read(self.project)["WORKER_REPLICAS"])

    # ---- in place of the functions of ops

    def instances(self, _: str) -> dict[str, list[Instance]]:
        return {"worker": list(self.containers.values())}

    def run(self, _project: Any, _report: Any, *arguments: str) -> None:
        assert arguments[:3] == ("up", "--no-start", "--no-recreate")
        assert arguments[-1] == "worker"
        count = int(arguments[3].removeprefix("--scale=worker="))
        assert len(self.containers) <= count, "compose would stop a worker"
        while len(self.containers) < count:
            self.add("created")

    def docker(self, command: str, *others: str) -> str:
        for identity in [each for each in others if not each.startswith("--")]:
            if command == "start":
                self.containers[identity] = replace(self.containers[identity], state="running")
            else:
                assert (command, self.containers.pop(identity).state) == ("rm", "exited")
        return ""

    def popen(self, command: list[str], **_: Any) -> Drain:
        assert command[:2] == ["docker", "stop"]
        self.graces.append(command[2])
        return self.drains.setdefault(command[3], Drain())

    def load(self, *_: Any) -> None:
        self.loads += 1

    def lock(self, *arguments: Any) -> Any:
        self.locks += 1
        return stack_lock(*arguments)

    def read(self, *_: Any) -> Demand:
        if self.tasks is None:
            raise StackError("cannot count the tasks: no scheduler runs")
        return Demand(self.tasks, 0)


@pytest.fixture
def workers(project, monkeypatch) -> Workers:
    """Two workers of eight slots, and a run with a floor of two and a ceiling of four."""
    project.env_file.write_text("WORKER_CEILING=4\nWORKER_CONCURRENCY=8\nWORKER_REPLICAS=2\n")
    fake = Workers(project)
    fake.add()
    fake.add()
    for function in ("instances", "run", "docker"):
        monkeypatch.setattr(compose, function, getattr(fake, function))
    grace = {"services": {"worker": {"stop_grace_period": "1m30s"}}}
    monkeypatch.setattr(compose, "config", lambda _: grace)
    monkeypatch.setattr(worker_containers.subprocess, "Popen", fake.popen)
    monkeypatch.setattr(worker_containers, "LOCK_SECONDS", 0.0)
    monkeypatch.setattr(task_counts, "read", fake.read)
    monkeypatch.setattr(generated_config, "write", lambda _, new: fake.expected.append(new["WORKER_REPLICAS"]))
    monkeypatch.setattr(generated_config, "load", fake.load)
    monkeypatch.setattr(worker_containers, "stack_lock", fake.lock)
    fake.loop = ControlLoop(project, Options(WINDOW), fake.lines.append)
    return fake


def scaled_out(workers: Workers) -> Workers:
    """Return the workers after a backlog for which four are needed."""
    workers.tasks = 32
    workers.step()
    workers.tasks = 0
    return workers


def test_a_backlog_starts_workers_in_the_same_step(workers):
    workers.tasks = 20
    workers.step()
    assert workers.names == ["worker-1", "worker-2", "worker-3"]
    assert {each.state for each in workers.containers.values()} == {"running"}
    assert (workers.replicas, workers.expected) == (3, ["3"])
    assert len([line for line in workers.lines if "2 -> 3" in line and "20 queued" in line]) == 1


def test_the_highest_numbers_drain_for_the_stop_grace(workers):
    scaled_out(workers).step(WINDOW + STEP)
    assert sorted(workers.drains) == ["worker-3", "worker-4"]
    assert set(workers.graces) == {"--time=90"}
    assert (workers.replicas, workers.expected[-1]) == (2, "2"), "a drained worker is not missed"
    workers.step(WINDOW)
    assert len(workers.graces) == 2, "each is stopped once"
    assert len(workers.names) == 4


def test_a_change_takes_the_lock_and_loads_the_rules_once(workers):
    scaled_out(workers)
    assert (workers.locks, workers.loads) == (1, 1)
    workers.step(WINDOW + STEP)
    assert (workers.replicas, workers.locks, workers.loads) == (2, 2, 2)


def test_a_worker_that_docker_refuses_is_one_line_and_expected(workers, monkeypatch):
    def refuse(*_: Any) -> None:
        raise StackError("cannot start a worker: no space left")

    monkeypatch.setattr(compose, "run", refuse)
    workers.tasks = 32
    workers.step(4 * STEP)
    assert (workers.replicas, workers.expected) == (4, ["4"])
    assert workers.loads == 4
    assert len([line for line in workers.lines if "no space left" in line]) == 1


def test_a_drained_worker_is_removed(workers):
    scaled_out(workers).step(WINDOW + STEP)
    workers.end_drain("worker-4")
    workers.step()
    assert workers.names == ["worker-1", "worker-2", "worker-3"]
    workers.end_drain("worker-3")
    workers.step()
    assert workers.names == ["worker-1", "worker-2"]


def test_a_drain_does_not_hold_the_stacks_lock(workers):
    scaled_out(workers).step(WINDOW + STEP)
    with stack_lock(workers.project, "up", print, wait_seconds=0):
        assert len(workers.drains) == 2


def test_a_backlog_during_a_drain_starts_further_workers(workers):
    scaled_out(workers).step(WINDOW + STEP)
    workers.tasks = 24
    workers.step()
    assert workers.names == [f"worker-{number}" for number in (1, 2, 3, 4, 5)]
    assert workers.replicas == 3
    for drained in ("worker-3", "worker-4"):
        workers.end_drain(drained)
    workers.step()
    assert workers.names == ["worker-1", "worker-2", "worker-5"]


def test_a_failed_stop_is_tried_again(workers):
    scaled_out(workers).step(WINDOW + STEP)
    workers.end_drain("worker-4", code=1)
    workers.drains.pop("worker-4")
    workers.step(2 * STEP)
    assert workers.graces == ["--time=90"] * 3
    assert "worker-4" in workers.names


def test_a_worker_that_another_command_removed_is_forgotten(workers):
    scaled_out(workers).step(WINDOW + STEP)
    workers.end_drain("worker-4")
    workers.containers.pop("worker-4")
    workers.step()
    assert workers.names == ["worker-1", "worker-2", "worker-3"]


def test_a_new_run_continues_the_drain_of_a_killed_one(workers):
    scaled_out(workers).step(WINDOW + STEP)
    workers.loop = ControlLoop(workers.project, Options(WINDOW), workers.lines.append)
    workers.graces.clear()
    workers.step()
    assert len(workers.graces) == 2
    assert workers.replicas == 2


def test_a_worker_that_does_not_run_is_started(workers):
    workers.containers["worker-2"] = replace(workers.containers["worker-2"], state="exited")
    workers.step()
    assert workers.containers["worker-2"].state == "running"


def test_tasks_that_cannot_be_counted_stop_no_worker(workers):
    scaled_out(workers).tasks = None
    workers.step(3 * WINDOW)
    assert (workers.replicas, workers.drains) == (4, {})
    assert len([line for line in workers.lines if "cannot count" in line]) == 1, "a state that lasts is one line"


def test_a_stack_without_containers_is_left_alone(workers):
    """`down` has removed them: no count, so no worker is created."""
    workers.containers.clear()
    workers.tasks = None
    workers.step(WINDOW)
    assert workers.names == []


def test_a_busy_lock_postpones_the_change(workers):
    workers.tasks = 32
    with stack_lock(workers.project, "upgrade", print):
        workers.step(2 * STEP)
        assert workers.replicas == 2
    workers.step()
    assert workers.replicas == 4
    assert len([line for line in workers.lines if "`ops/stack upgrade`" in line]) == 1


def test_a_manual_scale_lasts_for_the_window(workers):
    settings = settings_file.read(workers.project) | {"WORKER_REPLICAS": "3"}
    workers.step(2 * WINDOW)
    settings_file.write(workers.project, settings)
    workers.add()
    workers.step(WINDOW)
    assert (workers.replicas, workers.drains) == (3, {})
    workers.step(2 * STEP)
    assert (workers.replicas, list(workers.drains)) == (2, ["worker-3"])


def test_a_manual_scale_during_the_decision_wins(workers, monkeypatch):
    changed = settings_file.read(workers.project) | {"WORKER_REPLICAS": "3"}
    counted = workers.read

    def scaled_meanwhile(*_: Any) -> Demand:
        settings_file.write(workers.project, changed)
        return counted()

    workers.tasks = 32
    monkeypatch.setattr(task_counts, "read", scaled_meanwhile)
    workers.step()
    assert workers.replicas == 3
    assert workers.names == ["worker-1", "worker-2"], "the command that scales starts its worker itself"


def test_a_dry_run_reports_and_changes_nothing(workers):
    before = workers.project.env_file.read_text()
    workers.loop = ControlLoop(workers.project, Options(WINDOW, True, {"WORKER_CEILING": "3"}), workers.lines.append)
    workers.tasks = 32
    workers.step(3 * STEP)
    assert workers.project.env_file.read_text() == before
    assert workers.names == ["worker-1", "worker-2"]
    assert len([line for line in workers.lines if "2 -> 3" in line]) == 1
