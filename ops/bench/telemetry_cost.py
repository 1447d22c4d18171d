"""The cost of telemetry for tasks: on, with its containers stopped or frozen, and switched off in Airflow."""

from __future__ import annotations

import statistics
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING

from ops import compose, settings_file
from ops.bench.targets import wait_until_ready
from ops.bench.workloads import FAN_OUT, run_and_wait
from ops.errors import StackError
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target
    from ops.project import Project

NAME = "telemetry"
SUMMARY = (
    "The same fan-out of no-op tasks with telemetry on; with statsd-exporter, collector and Prometheus stopped, or "
    "frozen; and with metrics and traces switched off in Airflow."
)
TASKS = 200
CONTAINERS = ("statsd-exporter", "otel-collector", "prometheus")
VARIANTS = ON, STOPPED, FROZEN, OFF = "on", "stopped", "frozen", "off"
REVERT = {STOPPED: "start", FROZEN: "unpause"}
"""The docker command that ends a variant."""
RUN, RATE, SECONDS = "seconds", "tasks/s", "seconds a task"


def measure(target: Target, report: Callable[[str], None]) -> Sample:
    """Measure one fan-out."""
    finished = run_and_wait(target.api, FAN_OUT, {"tasks": TASKS}, report)
    durations = [seconds for name, seconds in target.api.task_durations(finished.run) if name.startswith("work[")]
    return {RUN: finished.seconds, RATE: TASKS / finished.seconds, SECONDS: statistics.mean(durations)}


@contextmanager
def telemetry_containers(target: Target, variant: str) -> Iterator[None]:
    """Stop or freeze telemetry's containers for the duration of the block; the other variants change nothing."""
    if variant not in REVERT:
        yield
        return
    services = compose.instances(target.project)
    containers = [instance.id for service in CONTAINERS for instance in services.get(service, [])]
    if variant == FROZEN:
        compose.pause(containers)
    else:
        compose.docker("stop", *containers)
    try:
        yield
    finally:
        compose.docker(REVERT[variant], *containers)


@contextmanager
def switched_off(project: Project, report: Callable[[str], None]) -> Iterator[None]:
    """Switch metrics and traces off in Airflow for the duration of the block."""
    before = project.env_file.read_text(encoding="utf-8")
    settings_file.write(project, {"STATSD_ON": "False", "TRACES": "False", "OTLP_ENDPOINT": ""})
    try:
        roll_out(project, report)
        yield
    finally:
        project.env_file.write_text(before, encoding="utf-8")
        roll_out(project, report)


def compare(measurement: Measurement) -> None:
    """Measure all variants, in alternating order: Airflow's containers are then recreated only once a round.

    Raises:
        StackError: The stack has no telemetry.
    """
    target, report = measurement.target, measurement.report
    if missing := sorted(set(CONTAINERS) - set(compose.instances(target.project))):
        raise StackError(
            f"cannot measure telemetry: the stack runs without {', '.join(missing)}",
            hint="run ./ops/stack up --profile observability with the profiles that run now",
        )

    turns = [
        (number, variant)
        for number in measurement.round_numbers()
        for variant in (VARIANTS if number % 2 else reversed(VARIANTS))
    ]
    wait_until_ready(target, report)
    for is_off, group in groupby(turns, lambda turn: turn[1] == OFF):
        with switched_off(measurement.project, report) if is_off else nullcontext():
            measure(target, report)  # not counted: the first run after a restart is slower
            for number, variant in group:
                with telemetry_containers(target, variant):
                    sample = measure(target, report)
                measurement.add(number, variant, sample, f"{sample[RATE]:.2f} tasks/s")
