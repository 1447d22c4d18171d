"""Savings by the patches of Airflow and Celery: each speed patch switched off, and each mode of PATCHES."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_ha.patches import registry
from ops.bench.benches import (
    COST,
    COST_TASKS,
    PAIRS,
    measure_latency,
    measure_slots,
    run_fan_out,
)
from ops.bench.telemetry_cost import RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ops.bench.setting_comparison import Values
    from ops.bench.statistics import Sample
    from ops.bench.targets import Target

    Report = Callable[[str], None]

ONE_SHOT: Final = "migrate"
"""The service that has exited before anything is measured, and is not restarted."""

NAME = "patches"
SUMMARY = (
    f"With every patch on, and with each speed patch off in turn: a fan-out of {COST_TASKS} no-ops, and runs of two "
    f"tasks, the median of {PAIRS}."
)
ALL_ON = "all on"
PATCHED: Final = ("worker", "execution-api", "scheduler")
"""Services with a figure of their own: the saving of one patch is within the noise of the sum over all services."""
MODES_NAME = "patch-modes"
MODES_SUMMARY = (
    f"PATCHES set to all, safety and none: a fan-out of {COST_TASKS} no-ops, runs of two tasks, the median of {PAIRS}, "
    "and the bench slots."
)


def patch_settings(patches: str, disabled: str = "") -> Values:
    """Return the values of .env that select patches."""
    return {"PATCHES": patches, "PATCHES_DISABLED": disabled}


MODES: Final[dict[str, Values]] = {mode: patch_settings(mode) for mode in registry.MODES}


def each_speed_patch_off(patches: Iterable[registry.Patch]) -> dict[str, Values]:
    """Return the settings with all patches on, then those without each speed patch, by its name."""
    return {ALL_ON: patch_settings("all")} | {
        patch.name: patch_settings("all", patch.name) for patch in patches if patch.kind == "speed"
    }


def affected_services(before: Values, after: Values, services: Iterable[str]) -> list[str]:
    """Return the services in which at least one patch is switched on or off between two settings."""
    off_before, off_after = (
        registry.switched_off(values["PATCHES"] or "all", values["PATCHES_DISABLED"]) for values in (before, after)
    )
    changed = off_before.keys() ^ off_after.keys()
    components = {component for patch in registry.PATCHES if patch.name in changed for component in patch.components}
    return sorted(name for name in services if registry.service_of(name) in components - {ONE_SHOT})


def measure(target: Target, report: Report) -> Sample:
    """Measure the figures that a speed patch or the pace of the schedulers may change."""
    sample = measure_latency(target, report)  # first: it warms up the workers that were restarted
    seconds, cpu = run_fan_out(target, report, COST_TASKS)
    sample |= {RATE: COST_TASKS / seconds, COST: sum(cpu.values()) / COST_TASKS}
    return sample | {f"{COST}, {service}": cpu.get(service, 0.0) / COST_TASKS for service in PATCHED}


def measure_mode(target: Target, report: Report) -> Sample:
    """Measure the figures of the benches against a stock Airflow that patches affect."""
    slots = {f"bench slots: {figure}": value for figure, value in measure_slots(target, report).items()}
    return {**measure(target, report), **slots}
