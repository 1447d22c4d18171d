"""The targets of the benches: the stack, and a stock Airflow beside it. One is active at a time, the others frozen.

A frozen target is still warm when it is thawed, a second later; a start takes two minutes of both cores. A target is
frozen only while it has no active run, and all its containers at once, so no task and no connection is lost.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ops import compose
from ops.bench.workloads import FAN_OUT, active_runs, run_and_wait
from ops.clients.airflow import connect
from ops.errors import StackError
from ops.project import dags_folder
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ops.bench.statistics import Sample
    from ops.clients.airflow import AirflowClient
    from ops.dag_file import DagFile
    from ops.project import Project

OURS, STOCK = "here", "stock"
READY_SECONDS = 300.0
IDLE_SECONDS = 120.0
WARM_UP_TASKS = 20
"""Tasks of the run that must succeed before a measurement, so that every process has worked since the thaw."""
CONCURRENCY = "AIRFLOW__CELERY__WORKER_CONCURRENCY"


@dataclass(frozen=True)
class Target:
    """A running Airflow that can be measured.

    Attributes:
        name: Its column in the tables.
        project: Name of its compose project.
        model: Its resolved compose configuration.
        api: Its REST API.
        limit_slots: Limits it to so many worker slots in all, for the duration of a block.
    """

    name: str
    project: str
    model: Mapping[str, Any]
    api: AirflowClient
    limit_slots: Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Measurement:
    """The input of a comparison of the stack with itself, and its samples.

    Attributes:
        project: The stack.
        target: The stack as a target.
        rounds: How often each variant is measured.
        samples: By variant; filled while the comparison runs, so that a failure keeps the samples before it.
        report: Shows a progress line.
    """

    project: Project
    target: Target
    rounds: int
    samples: dict[str, list[Sample]]
    report: Callable[[str], None]

    def round_numbers(self) -> range:
        """Return the numbers of the rounds, from 1."""
        return range(1, self.rounds + 1)

    def add(self, round_number: int, variant: str, sample: Sample, summary: str = "") -> None:
        """Keep a sample and report it."""
        self.samples.setdefault(variant, []).append(sample)
        self.report(f"round {round_number} of {self.rounds}, {variant}{': ' if summary else ''}{summary}")


def wait_until_ready(target: Target, report: Callable[[str], None]) -> None:
    """Wait until every service is healthy."""
    wait(lambda: all_ready(target.model), READY_SECONDS, f"{target.name}: every service is healthy", report)


def wait_until_idle(target: Target, report: Callable[[str], None]) -> None:
    """Wait until no DAG run is active."""
    wait(lambda: not active_runs(target.api), IDLE_SECONDS, f"{target.name}: no run is active", report)


def container_ids(project: str, state: str) -> list[str]:
    """Return the ids of the containers of a compose project that are in a state."""
    return [instance.id for instance in compose.in_state(compose.instances(project), state)]


def freeze(target: Target, report: Callable[[str], None]) -> None:
    """Pause all containers of a target, once no run is active."""
    if running := container_ids(target.project, "running"):
        wait_until_idle(target, report)
        compose.pause(running)


def thaw(project: str) -> None:
    """Unpause the paused containers of a compose project."""
    if frozen := container_ids(project, "paused"):
        compose.docker("unpause", *frozen)


@contextmanager
def taking_turns(targets: Sequence[Target], report: Callable[[str], None]) -> Iterator[Callable[[Target], None]]:
    """Allow one active target at a time; thaw all of them after the block.

    Yields:
        Function that activates a target: it freezes the others, and returns once the target is healthy, warm and idle.
    """

    def activate(target: Target) -> None:
        for other in targets:
            if other is not target:
                freeze(other, report)
        thaw(target.project)
        wait_until_ready(target, report)
        run_and_wait(target.api, FAN_OUT, {"tasks": WARM_UP_TASKS}, report)
        wait_until_idle(target, report)

    try:
        yield activate
    finally:
        for target in targets:
            thaw(target.project)


@contextmanager
def fewer_workers(project: str, model: Mapping[str, Any], report: Callable[[str], None], slots: int) -> Iterator[None]:
    """Stop workers for the duration of the block, so that the rest has so many slots in all.

    Raises:
        StackError: No number of whole workers has so many slots.
    """
    slots_each = int(model["services"]["worker"]["environment"][CONCURRENCY])
    workers = compose.instances(project)["worker"]
    if slots % slots_each or slots // slots_each > len(workers):
        raise StackError(
            f"cannot limit the stack to {slots} slots: it has {len(workers)} workers of {slots_each} slots",
            hint="run ./ops/stack scale worker=N to add workers",
        )
    surplus = [instance.id for instance in workers[slots // slots_each :]]
    if not surplus:
        yield
        return
    report(f"stopping {len(surplus)} of {len(workers)} workers for this bench")
    try:
        compose.docker("stop", *surplus)
        yield
    finally:
        compose.docker("start", *surplus)
        wait(lambda: all_ready(model), READY_SECONDS, "every worker is healthy again", report)


@contextmanager
def stack_target(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None], dag: DagFile
) -> Iterator[Target]:
    """Yield the stack as a target, with the benches' DAGs for the duration of the block."""
    name = settings["COMPOSE_PROJECT_NAME"]
    model = compose.config(project)
    api = connect(project, settings, report)
    with dag.in_place(dags_folder(project, settings), api, report):
        yield Target(OURS, name, model, api, partial(fewer_workers, name, model, report))
