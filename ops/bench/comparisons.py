"""The benches that compare variants of this stack: numbers of instances and DAG files, settings, patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_ha.patches.registry import PATCHES
from ops.bench import (
    backup_load,
    commit_rate,
    dag_file_scaling,
    instance_scaling,
    maintenance_load,
    memory_load,
    patch_switches,
    setting_comparison,
    telemetry_cost,
)
from ops.bench.benches import BENCHES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.targets import Measurement


@dataclass(frozen=True)
class Comparison:
    """A bench that compares variants of this stack, without a stock Airflow.

    Attributes:
        name: Its name on the command line.
        summary: Its work and its figures, in one phrase.
        base: The variant that the others are compared with.
        compare: Measures all variants in all rounds, and restores the stack.
    """

    name: str
    summary: str
    base: str
    compare: Callable[[Measurement], None]


COMPARISONS = (
    *(
        Comparison(
            f"{service}s",
            instance_scaling.summary(service, sizes),
            instance_scaling.variant_name(service, sizes[0]),
            partial(instance_scaling.compare, service, sizes),
        )
        for service, sizes in (("scheduler", instance_scaling.SCHEDULERS), ("worker", instance_scaling.WORKERS))
    ),
    Comparison(
        dag_file_scaling.NAME,
        dag_file_scaling.SUMMARY,
        dag_file_scaling.variant_name(dag_file_scaling.SIZES[0]),
        dag_file_scaling.compare,
    ),
    Comparison(memory_load.NAME, memory_load.SUMMARY, memory_load.AT_REST, memory_load.compare),
    Comparison(commit_rate.NAME, commit_rate.SUMMARY, commit_rate.BASE, commit_rate.compare),
    Comparison(
        patch_switches.NAME,
        patch_switches.SUMMARY,
        patch_switches.ALL_ON,
        partial(
            setting_comparison.compare,
            patch_switches.each_speed_patch_off(PATCHES),
            patch_switches.affected_services,
            patch_switches.measure,
        ),
    ),
    Comparison(
        patch_switches.MODES_NAME,
        patch_switches.MODES_SUMMARY,
        next(iter(patch_switches.MODES)),
        partial(
            setting_comparison.compare,
            patch_switches.MODES,
            patch_switches.affected_services,
            patch_switches.measure_mode,
        ),
    ),
    Comparison(
        setting_comparison.REST_NAME,
        setting_comparison.REST_SUMMARY,
        setting_comparison.REST_DEFAULT,
        partial(
            setting_comparison.compare,
            setting_comparison.REST,
            setting_comparison.affected_schedulers,
            patch_switches.measure,
        ),
    ),
    Comparison(maintenance_load.NAME, maintenance_load.SUMMARY, maintenance_load.BEFORE, maintenance_load.compare),
    # The last two fail on a stack without the profile that they measure.
    Comparison(telemetry_cost.NAME, telemetry_cost.SUMMARY, telemetry_cost.OFF, telemetry_cost.compare),
    Comparison(backup_load.NAME, backup_load.SUMMARY, backup_load.WITHOUT, backup_load.compare),
)

SUMMARIES = {bench.name: bench.summary for bench in BENCHES} | {
    comparison.name: comparison.summary for comparison in COMPARISONS
}
"""Each bench's work and figures, by its name."""
