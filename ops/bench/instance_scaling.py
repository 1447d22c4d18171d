"""Gain and cost of more instances of a service: the same work with one instance, and with several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ops import compose, preflight, scaling, settings_file
from ops.bench import prometheus_figures
from ops.bench.benches import COST, COST_TASKS, measure_idle, measure_latency, measure_memory, run_fan_out
from ops.bench.statistics import by_service
from ops.bench.targets import taking_turns
from ops.bench.telemetry_cost import RATE
from ops.compose import expected_replicas
from ops.errors import StackError
from ops.services import replicas_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target

SCHEDULERS, WORKERS = (1, 2, 3), (1, 2, 4)
IDLE_SECONDS = 30.0


def summary(service: str, sizes: Sequence[int]) -> str:
    """Return what the bench of a service measures."""
    *small, largest = map(str, sizes)
    return (
        f"With {', '.join(small)} and {largest} {service}s: a fan-out of {COST_TASKS} no-ops, runs of two tasks, "
        f"{IDLE_SECONDS:.0f} s without a load, and the memory after it."
    )


def variant_name(service: str, instances: int) -> str:
    """Return the variant's name in the results."""
    return f"{instances} {service}{'' if instances == 1 else 's'}"


def sizes_that_fit(
    model: Mapping[str, Any], service: str, sizes: Iterable[int], report: Callable[[str], None]
) -> list[int]:
    """Return the numbers of instances that this machine has the memory for, and report the others.

    Args:
        model: The stack's resolved compose configuration.
        service: Name of the service.
        sizes: Numbers of instances.
        report: Shows a progress line.
    """
    replicas = expected_replicas(model)[service]
    limit = int(model["services"][service]["deploy"]["resources"]["limits"]["memory"])
    fitting = []
    for size in sizes:
        try:
            preflight.check_memory((size - replicas) * limit)
        except StackError as error:
            report(f"{variant_name(service, size)}: skipped; {error.what}")
        else:
            fitting.append(size)
    return fitting


def relevant_figures(sample: Sample, service: str) -> Sample:
    """Return the figures of the scaled service and of all services together."""
    return {name: value for name, value in sample.items() if name.partition(": ")[2] in ("", service)}


def measure(target: Target, settings: Mapping[str, str], report: Callable[[str], None]) -> Sample:
    """Measure the target with its current number of instances."""
    seconds, cpu = run_fan_out(target, report, COST_TASKS)
    work = {RATE: COST_TASKS / seconds, **by_service(COST, cpu, COST_TASKS)}
    queried = prometheus_figures.query_figures(settings)  # while the fan-out is within the last minute
    return {
        **work,
        **measure_latency(target, report),
        **measure_idle(target, report, IDLE_SECONDS),
        **measure_memory(target, report),
        **queried,
    }


def compare(service: str, sizes: Sequence[int], measurement: Measurement) -> None:
    """Measure each number of instances, up and down in turn; then restore the number.

    Args:
        service: The service to scale.
        sizes: Numbers of instances, ascending.
        measurement: Where and how often to measure.
    """
    project, report = measurement.project, measurement.report
    settings = settings_file.read(project)
    fitting = sizes_that_fit(compose.config(project), service, sizes, report)
    try:
        for number in measurement.round_numbers():
            for size in fitting if number % 2 else reversed(fitting):
                scaling.scale(project, {service: size}, report)
                # The expected replicas are those of the changed .env.
                target = replace(measurement.target, model=compose.config(project))
                with taking_turns([target], report) as activate:
                    activate(target)
                    sample = relevant_figures(measure(target, settings, report), service)
                measurement.add(number, variant_name(service, size), sample, f"{sample[RATE]:.2f} tasks/s")
    finally:
        scaling.scale(project, {service: int(settings[replicas_variable(service)])}, report)
