"""What patches of Airflow and Celery save: each speed patch off in turn, and all that PATCHES switches off at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_ha.patches import registry
from ops.bench.benches import COST, COST_TASKS, PAIRS, counted, fan_out, latency, slots
from ops.bench.telemetry_cost import RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ops.bench.setting_comparison import Values
    from ops.bench.statistics import Sample
    from ops.bench.targets import Side

    Report = Callable[[str], None]

RUNS_ONCE: Final = "migrate"
"""Is not restarted: it has ended before anything is measured."""

NAME = "patches"
SENTENCE = (
    f"With every patch on, and with each speed patch off in turn: a fan-out of {COST_TASKS} no-ops, and runs of two "
    f"tasks, the median of {PAIRS}."
)
ALL_ON = "all on"
PATCHED: Final = ("worker", "execution-api", "scheduler")
"""Services whose own CPU time is shown too: what one patch saves there is lost in the noise of all others."""
MODES_NAME = "patch-modes"
MODES_SENTENCE = "The benches latency, fanout and slots with PATCHES set to all, safety and none."


def switched(patches: str, disabled: str = "") -> Values:
    """Return the values of .env."""
    return {"PATCHES": patches, "PATCHES_DISABLED": disabled}


MODES: Final[dict[str, Values]] = {mode: switched(mode) for mode in registry.MODES}


def each_off(patches: Iterable[registry.Patch]) -> dict[str, Values]:
    """Return the settings with all patches on, then those without each speed patch, by its name."""
    return {ALL_ON: switched("all")} | {
        patch.name: switched("all", patch.name) for patch in patches if patch.kind == "speed"
    }


def affected(before: Values, now: Values, services: Iterable[str]) -> list[str]:
    """Return the services in which a patch is on with the one and off with the other."""
    off = [registry.switched_off(way["PATCHES"] or "all", way["PATCHES_DISABLED"]) for way in (before, now)]
    changed = off[0].keys() ^ off[1].keys()
    components = {one for patch in registry.PATCHES if patch.name in changed for one in patch.components}
    return sorted(name for name in services if registry.service_of(name) in components - {RUNS_ONCE})


def measure(side: Side, report: Report) -> Sample:
    """Measure what a speed patch may change."""
    sample = latency(side, report)  # first: a worker that was restarted is slower for its first tasks
    seconds, spent = counted(side, report, COST_TASKS)
    sample |= {RATE: COST_TASKS / seconds, COST: sum(spent.values()) / COST_TASKS}
    return sample | {f"{COST}, {service}": spent.get(service, 0.0) / COST_TASKS for service in PATCHED}


def measure_mode(side: Side, report: Report) -> Sample:
    """Measure what the benches beside a stock Airflow measure, as far as patches change it."""
    return {**latency(side, report), **fan_out(side, report), **slots(side, report)}
