"""The stack with values of compose/.env in turn: each restarts only the services that read it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.bench.benches import LATENCY, fan_out, latency
from ops.bench.targets import turns
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project

    Report = Callable[[str], None]
    Values = Mapping[str, str]
    Affected = Callable[[Values, Values, Iterable[str]], list[str]]

REST_NAME: Final = "scheduler-rest"
REST_SENTENCE: Final = (
    "The benches latency and fanout with SCHEDULER_REST_FACTOR set to 3, its default, and to 0: schedulers begin their "
    "next loop at once."
)
REST_DEFAULT: Final = "3"
REST: Final = {factor: {"SCHEDULER_REST_FACTOR": factor} for factor in (REST_DEFAULT, "0")}


def schedulers(before: Values, now: Values, services: Iterable[str]) -> list[str]:
    """Return the services that read a setting of schedulers, if it has changed."""
    return [name for name in services if name == "scheduler" and before != now]


def measure(side: Side, report: Report) -> Sample:
    """Measure what schedulers decide the pace of."""
    return {**latency(side, report), **fan_out(side, report)}


def compare(
    ways: Mapping[str, Values],
    affected: Affected,
    measure: Callable[[Side, Report], Sample],
    project: Project,
    side: Side,
    rounds: int,
    taken: dict[str, list[Sample]],
    report: Report,
) -> None:
    """Take every way in turn, forward and back again; then the settings are as before.

    Args:
        ways: Values of .env by the way's name, all of the same keys.
        affected: Of two ways' values and all services, returns those that must be restarted between them.
        measure: What is measured in each way.
        project: The stack.
        side: The same, as it is measured.
        rounds: How often each way is taken.
        taken: Where the samples go, by the way's name.
        report: Shows a line to people.
    """
    text = project.env_file.read_text(encoding="utf-8")
    settings = settings_file.read(project)
    last: Values = {key: settings.get(key, "") for values in ways.values() for key in values}
    try:
        for number in range(1, rounds + 1):
            for name in list(ways) if number % 2 else reversed(list(ways)):
                settings_file.write(project, dict(ways[name]))
                model = compose.config(project)
                if restarted := affected(last, ways[name], model["services"]):
                    roll_out(project, report, "--no-deps", *restarted)
                last = ways[name]
                changed = replace(side, model=model)
                with turns([changed], report) as turn:
                    turn(changed)
                    sample = measure(changed, report)
                taken.setdefault(name, []).append(sample)
                report(f"round {number} of {rounds}, {name}: {sample[LATENCY]:.2f} s a run of two tasks")
    finally:
        project.env_file.write_text(text, encoding="utf-8")
        roll_out(project, report)
