"""Who is measured: the stack, and a stock Airflow beside it. One works at a time, the other is frozen whole.

Frozen, not stopped: what is thawed is as warm as it was, a second later, where a start takes two minutes of both
cores. Nothing is lost by it, since a side is frozen only when no run of it is under way, and all of it at once: its
clocks stand still together, its connections stay. What a side takes for a dead peer as it wakes is alive again with
the next heartbeat, and a run has succeeded before anything is measured.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ops import compose
from ops.bench.workloads import FAN_OUT, run_to_end, under_way
from ops.clients.airflow import connect
from ops.errors import StackError
from ops.project import dags_folder
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ops.clients.airflow import AirflowClient
    from ops.dag_file import DagFile
    from ops.project import Project

OURS, STOCK = "here", "stock"
WHOLE_SECONDS = 300.0
QUIET_SECONDS = 120.0
WARM_UP = 20
"""Tasks of the run that must succeed before a side is measured: every process has worked since it woke."""
CONCURRENCY = "AIRFLOW__CELERY__WORKER_CONCURRENCY"


@dataclass(frozen=True)
class Side:
    """A stack that can be measured.

    Attributes:
        name: in the tables.
        project: its compose project's name.
        model: what compose knows of it.
        api: its REST API.
        slots: gives it so many worker slots in all, for as long as the block lasts.
    """

    name: str
    project: str
    model: Mapping[str, Any]
    api: AirflowClient
    slots: Callable[[int], AbstractContextManager[None]]


def whole(side: Side, report: Callable[[str], None]) -> None:
    """Waits until every service of it is healthy."""
    wait(lambda: all_ready(side.model), WHOLE_SECONDS, f"{side.name}: every service is healthy", report)


def quiet(side: Side, report: Callable[[str], None]) -> None:
    """Waits until no run is under way."""
    wait(lambda: not under_way(side.api), QUIET_SECONDS, f"{side.name}: no run is under way", report)


def freeze(side: Side, report: Callable[[str], None]) -> None:
    """Stops all its processes where they are, once no run is under way."""
    if running := compose.in_state(compose.instances(side.project), "running"):
        quiet(side, report)
        compose.pause([instance.id for instance in running])


def thaw(project: str) -> None:
    """Lets a compose project's processes go on."""
    if frozen := compose.in_state(compose.instances(project), "paused"):
        compose.docker("unpause", *(instance.id for instance in frozen))


@contextmanager
def turns(sides: Sequence[Side], report: Callable[[str], None]) -> Iterator[Callable[[Side], None]]:
    """Only one side works at a time.

    Yields:
        Gives a side its turn: the others are frozen, it is healthy, warm and has nothing to do.
    """

    def turn(side: Side) -> None:
        for other in sides:
            if other is not side:
                freeze(other, report)
        thaw(side.project)
        whole(side, report)
        run_to_end(side.api, FAN_OUT, {"tasks": WARM_UP}, report)
        quiet(side, report)

    try:
        yield turn
    finally:
        for side in sides:
            thaw(side.project)


@contextmanager
def fewer_workers(project: str, model: Mapping[str, Any], report: Callable[[str], None], slots: int) -> Iterator[None]:
    """The stack with as many of its workers as have so many slots; the others are stopped for a while.

    Raises:
        StackError: Its workers cannot be divided so.
    """
    each = int(model["services"]["worker"]["environment"][CONCURRENCY])
    workers = compose.instances(project)["worker"]
    if slots % each or slots // each > len(workers):
        raise StackError(f"{len(workers)} workers of {each} slots cannot be {slots} slots", hint="./ops/stack scale")
    surplus = [one.id for one in workers[slots // each :]]
    if not surplus:
        yield
        return
    report(f"{len(surplus)} of {len(workers)} workers stop for a while")
    try:
        compose.docker("stop", *surplus)
        yield
    finally:
        compose.docker("start", *surplus)
        wait(lambda: all_ready(model), WHOLE_SECONDS, "every worker is back", report)


@contextmanager
def ours(project: Project, settings: Mapping[str, str], report: Callable[[str], None], dag: DagFile) -> Iterator[Side]:
    """The stack itself, with the benches' DAGs for as long as the block lasts."""
    name = settings["COMPOSE_PROJECT_NAME"]
    model = compose.config(project)
    api = connect(project, settings, report)
    with dag.in_place(dags_folder(project, settings), api, report):
        yield Side(OURS, name, model, api, partial(fewer_workers, name, model, report))
