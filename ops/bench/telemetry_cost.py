"""What telemetry costs tasks: on, with its containers stopped or frozen, and with all of it switched off in Airflow."""

from __future__ import annotations

import statistics
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING

from ops import compose, settings_file
from ops.bench.targets import whole
from ops.bench.workloads import FAN_OUT, run_to_end
from ops.errors import StackError
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project

NAME = "telemetry"
SENTENCE = (
    "The same fan-out of no-op tasks with telemetry on; with statsd-exporter, collector and Prometheus stopped, or "
    "frozen; and with metrics and traces switched off in Airflow."
)
TASKS = 200
CONTAINERS = ("statsd-exporter", "otel-collector", "prometheus")
WAYS = ON, STOPPED, FROZEN, OFF = "on", "stopped", "frozen", "off"
UNDO = {STOPPED: "start", FROZEN: "unpause"}
RUN, RATE, SECONDS = "seconds", "tasks/s", "seconds a task"


def measure(side: Side, report: Callable[[str], None]) -> Sample:
    """One fan-out."""
    ended = run_to_end(side.api, FAN_OUT, {"tasks": TASKS}, report)
    durations = [seconds for name, seconds in side.api.task_durations(ended.run) if name.startswith("work[")]
    return {RUN: ended.seconds, RATE: TASKS / ended.seconds, SECONDS: statistics.mean(durations)}


@contextmanager
def containers(side: Side, how: str) -> Iterator[None]:
    """Telemetry's containers stopped or frozen; as they are for anything else."""
    if how not in UNDO:
        yield
        return
    found = compose.instances(side.project)
    victims = [instance.id for service in CONTAINERS for instance in found.get(service, [])]
    if how == FROZEN:
        compose.pause(victims)
    else:
        compose.docker("stop", *victims)
    try:
        yield
    finally:
        compose.docker(UNDO[how], *victims)


@contextmanager
def switched_off(project: Project, report: Callable[[str], None]) -> Iterator[None]:
    """Airflow without metrics and traces, for a while."""
    before = project.env_file.read_text(encoding="utf-8")
    settings_file.write(project, {"STATSD_ON": "False", "TRACES": "False", "OTLP_ENDPOINT": ""})
    try:
        roll_out(project, report)
        yield
    finally:
        project.env_file.write_text(before, encoding="utf-8")
        roll_out(project, report)


def compare(
    project: Project, side: Side, rounds: int, taken: dict[str, list[Sample]], report: Callable[[str], None]
) -> None:
    """All four ways in turn, up and down again: Airflow's containers are made anew once a round.

    Args:
        project: The stack.
        side: The same, as it is measured.
        rounds: how often each.
        taken: gets the samples, by way; what is there when something fails was measured.
        report: Shows a line to people.

    Raises:
        StackError: The stack has no telemetry.
    """
    if missing := sorted(set(CONTAINERS) - set(compose.instances(side.project))):
        raise StackError(
            f"the stack runs without {', '.join(missing)}", hint="./ops/stack up --profile observability …"
        )

    turns = [(number, how) for number in range(1, rounds + 1) for how in (WAYS if number % 2 else reversed(WAYS))]
    whole(side, report)
    for is_off, group in groupby(turns, lambda turn: turn[1] == OFF):
        with switched_off(project, report) if is_off else nullcontext():
            measure(side, report)  # the first run after a change is slower in every way
            for number, how in group:
                with containers(side, how):
                    taken.setdefault(how, []).append(measure(side, report))
                report(f"round {number} of {rounds}, telemetry {how}: {taken[how][-1][RATE]:.2f} tasks/s")
