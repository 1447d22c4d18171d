"""Measure the stack with different values of compose/.env; only the services that read a changed value restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.bench.benches import COST_TASKS, LATENCY, PAIRS
from ops.bench.targets import taking_turns
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target

    Report = Callable[[str], None]
    Values = Mapping[str, str]
    AffectedServices = Callable[[Values, Values, Iterable[str]], list[str]]

REST_NAME: Final = "scheduler-rest"
REST_SUMMARY: Final = (
    f"SCHEDULER_REST_FACTOR set to 3, its default, and to 0, with which schedulers begin their next loop at once: a "
    f"fan-out of {COST_TASKS} no-ops, and runs of two tasks, the median of {PAIRS}."
)
REST_DEFAULT: Final = "3"
REST: Final = {factor: {"SCHEDULER_REST_FACTOR": factor} for factor in (REST_DEFAULT, "0")}


def affected_schedulers(before: Values, after: Values, services: Iterable[str]) -> list[str]:
    """Return the scheduler service if its settings differ."""
    return [name for name in services if name == "scheduler" and before != after]


def compare(
    variants: Mapping[str, Values],
    affected_services: AffectedServices,
    measure: Callable[[Target, Report], Sample],
    measurement: Measurement,
) -> None:
    """Measure each variant of the settings, in alternating order; then restore the settings.

    Args:
        variants: Values of .env by the variant's name; all variants set the same keys.
        affected_services: Returns the services to restart, for the values before, the values after and all services.
        measure: Measures a target.
        measurement: Where and how often to measure.
    """
    project, report = measurement.project, measurement.report
    text = project.env_file.read_text(encoding="utf-8")
    settings = settings_file.read(project)
    current: Values = {key: settings.get(key, "") for values in variants.values() for key in values}
    try:
        for number in measurement.round_numbers():
            for name in list(variants) if number % 2 else reversed(list(variants)):
                settings_file.write(project, dict(variants[name]))
                model = compose.config(project)
                if restarted := affected_services(current, variants[name], model["services"]):
                    roll_out(project, report, "--no-deps", *restarted)
                current = variants[name]
                target = replace(measurement.target, model=model)
                with taking_turns([target], report) as activate:
                    activate(target)
                    sample = measure(target, report)
                measurement.add(number, name, sample, f"{sample[LATENCY]:.2f} s a run of two tasks")
    finally:
        project.env_file.write_text(text, encoding="utf-8")
        roll_out(project, report)
