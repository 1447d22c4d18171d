"""What patches of Airflow and Celery save: each speed patch off in turn, and all that PATCHES switches off at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from airflow_ha.patches import registry
from ops import compose, environment_file
from ops.bench.catalogue import COST, COST_TASKS, LATENCY, PAIRS, counted, fan_out, latency, slots
from ops.bench.side import turns
from ops.bench.telemetry import RATE
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ops.bench.figures import Sample
    from ops.bench.side import Side
    from ops.project import Project

    Report = Callable[[str], None]

Values = tuple[str, str]
"""Of PATCHES and PATCHES_DISABLED."""
KEYS: Final = ("PATCHES", "PATCHES_DISABLED")
RUNS_ONCE: Final = "migrate"
"""Is not restarted: it has ended before anything is measured."""

NAME = "patches"
SENTENCE = (
    f"With every patch on, and with each speed patch off in turn: a fan-out of {COST_TASKS} no-ops, and runs of two "
    f"tasks, the median of {PAIRS}."
)
ALL_ON = "all on"
MODES_NAME = "patch-modes"
MODES_SENTENCE = "The benches latency, fanout and slots with PATCHES set to all, safety and none."
MODES: Final[dict[str, Values]] = {mode: (mode, "") for mode in registry.MODES}


def each_off(patches: Iterable[registry.Patch]) -> dict[str, Values]:
    """Return the settings with all patches on, then those without each speed patch, by its name."""
    return {ALL_ON: ("all", "")} | {patch.name: ("all", patch.name) for patch in patches if patch.kind == "speed"}


def affected(before: Values, now: Values, services: Iterable[str]) -> list[str]:
    """Return the services in which a patch is on with the one and off with the other."""
    changed = registry.switched_off(*before).keys() ^ registry.switched_off(*now).keys()
    components = {one for patch in registry.PATCHES if patch.name in changed for one in patch.components}
    return sorted(name for name in services if registry.service_of(name) in components - {RUNS_ONCE})


def values(settings: Mapping[str, str]) -> Values:
    """Return what .env says of patches."""
    return settings.get(KEYS[0]) or "all", settings.get(KEYS[1], "")


def measure(side: Side, report: Report) -> Sample:
    """Measure what a speed patch may change."""
    seconds, spent = counted(side, report, COST_TASKS)
    return {**latency(side, report), RATE: COST_TASKS / seconds, COST: sum(spent.values()) / COST_TASKS}


def measure_mode(side: Side, report: Report) -> Sample:
    """Measure what the benches beside a stock Airflow measure, as far as patches change it."""
    return {**latency(side, report), **fan_out(side, report), **slots(side, report)}


def compare(
    ways: Mapping[str, Values],
    measure: Callable[[Side, Report], Sample],
    project: Project,
    side: Side,
    rounds: int,
    taken: dict[str, list[Sample]],
    report: Report,
) -> None:
    """Take every way in turn, forward and back again; then the settings are as before.

    A Comparison's but for the ways, by their sides' names, and what is done in each.
    """
    before = project.env_file.read_text(encoding="utf-8")
    last = values(environment_file.read(project))
    try:
        for number in range(1, rounds + 1):
            for name in list(ways) if number % 2 else reversed(list(ways)):
                environment_file.write(project, dict(zip(KEYS, ways[name], strict=True)))
                model = compose.config(project)
                if restarted := affected(last, ways[name], model["services"]):
                    roll_out(project, report, "--no-deps", *restarted)
                last = ways[name]
                patched = replace(side, model=model)
                with turns([patched], report) as turn:
                    turn(patched)
                    sample = measure(patched, report)
                taken.setdefault(name, []).append(sample)
                report(f"round {number} of {rounds}, {name}: {sample[LATENCY]:.2f} s a run of two tasks")
    finally:
        project.env_file.write_text(before, encoding="utf-8")
        roll_out(project, report)
