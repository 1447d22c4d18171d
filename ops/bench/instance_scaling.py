"""What more instances of a service bring and cost: the same work with one, and with several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ops import compose, preflight, scaling, settings_file
from ops.bench import prometheus_figures
from ops.bench.benches import COST, COST_TASKS, counted, idle, latency, memory
from ops.bench.statistics import by_service
from ops.bench.targets import turns
from ops.bench.telemetry_cost import RATE
from ops.compose import expected_replicas
from ops.errors import StackError
from ops.services import replicas_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project

SCHEDULERS, WORKERS = (1, 2, 3), (1, 2, 4)
IDLE_SECONDS = 30.0


def sentence(service: str, sizes: Sequence[int]) -> str:
    """What is done and counted, for people."""
    *few, most = map(str, sizes)
    return (
        f"With {', '.join(few)} and {most} {service}s: a fan-out of {COST_TASKS} no-ops, runs of two tasks, "
        f"{IDLE_SECONDS:.0f} s without a load, and what is held after it."
    )


def named(service: str, number: int) -> str:
    """A number of instances as a side's name."""
    return f"{number} {service}{'' if number == 1 else 's'}"


def that_fit(model: Mapping[str, Any], service: str, sizes: Iterable[int], report: Callable[[str], None]) -> list[int]:
    """The numbers of instances that this machine has the memory for; people are told of the others.

    Args:
        model: What compose knows of the stack.
        service: Of which.
        sizes: The numbers.
        report: Shows a line to people.
    """
    there = expected_replicas(model)[service]
    limit = int(model["services"][service]["deploy"]["resources"]["limits"]["memory"])
    found = []
    for size in sizes:
        try:
            preflight.check_memory((size - there) * limit)
        except StackError as error:
            report(f"{named(service, size)}: left out; {error.what}")
        else:
            found.append(size)
    return found


def of_interest(sample: Sample, service: str) -> Sample:
    """The figures of all services together, and of one; the others' do not depend on it."""
    return {name: value for name, value in sample.items() if name.partition(": ")[2] in ("", service)}


def measure(side: Side, settings: Mapping[str, str], report: Callable[[str], None]) -> Sample:
    """Once, with as many instances as there are."""
    seconds, spent = counted(side, report, COST_TASKS)
    work = {RATE: COST_TASKS / seconds, **by_service(COST, spent, COST_TASKS)}
    seen = prometheus_figures.asked(settings)  # while the fan-out is in its last minute
    return {**work, **latency(side, report), **idle(side, report, IDLE_SECONDS), **memory(side, report), **seen}


def compare(
    service: str,
    sizes: Sequence[int],
    project: Project,
    side: Side,
    rounds: int,
    taken: dict[str, list[Sample]],
    report: Callable[[str], None],
) -> None:
    """Every number of instances of a service in turn, up and down again; then there are as many as before.

    But for the service and its ascending numbers, a Comparison's.
    """
    settings = settings_file.read(project)
    held = that_fit(compose.config(project), service, sizes, report)
    try:
        for number in range(1, rounds + 1):
            for size in held if number % 2 else reversed(held):
                scaling.scale(project, {service: size}, report)
                # Whole is what .env says now.
                scaled = replace(side, model=compose.config(project))
                with turns([scaled], report) as turn:
                    turn(scaled)
                    sample = of_interest(measure(scaled, settings, report), service)
                taken.setdefault(named(service, size), []).append(sample)
                report(f"round {number} of {rounds}, {named(service, size)}: {sample[RATE]:.2f} tasks/s")
    finally:
        scaling.scale(project, {service: int(settings[replicas_variable(service)])}, report)
