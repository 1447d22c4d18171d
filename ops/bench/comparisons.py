"""The benches of the stack with itself: what it costs to have more of something, or less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_ha.patches.registry import PATCHES
from ops.bench import (
    commit_rate,
    dag_file_scaling,
    instance_scaling,
    memory_load,
    patch_switches,
    setting_comparison,
    telemetry_cost,
)
from ops.bench.benches import BENCHES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project


@dataclass(frozen=True)
class Comparison:
    """One thing that only this stack is measured with.

    Attributes:
        name: on the command line.
        sentence: what is done and counted, for people.
        base: the side that the others are compared with.
        compare: takes all rounds of all sides, and leaves the stack as it was. It gets the stack; the same as it is
            measured; how many rounds; where the samples go by side, so that what is there when something fails was
            measured; and what shows a line to people.
    """

    name: str
    sentence: str
    base: str
    compare: Callable[[Project, Side, int, dict[str, list[Sample]], Callable[[str], None]], None]


COMPARISONS = (
    *(
        Comparison(
            f"{service}s",
            instance_scaling.sentence(service, sizes),
            instance_scaling.named(service, sizes[0]),
            partial(instance_scaling.compare, service, sizes),
        )
        for service, sizes in (("scheduler", instance_scaling.SCHEDULERS), ("worker", instance_scaling.WORKERS))
    ),
    Comparison(
        dag_file_scaling.NAME,
        dag_file_scaling.SENTENCE,
        dag_file_scaling.named(dag_file_scaling.SIZES[0]),
        dag_file_scaling.compare,
    ),
    Comparison(memory_load.NAME, memory_load.SENTENCE, memory_load.AT_REST, memory_load.compare),
    Comparison(commit_rate.NAME, commit_rate.SENTENCE, commit_rate.BASE, commit_rate.compare),
    Comparison(
        patch_switches.NAME,
        patch_switches.SENTENCE,
        patch_switches.ALL_ON,
        partial(
            setting_comparison.compare,
            patch_switches.each_off(PATCHES),
            patch_switches.affected,
            patch_switches.measure,
        ),
    ),
    Comparison(
        patch_switches.MODES_NAME,
        patch_switches.MODES_SENTENCE,
        next(iter(patch_switches.MODES)),
        partial(setting_comparison.compare, patch_switches.MODES, patch_switches.affected, patch_switches.measure_mode),
    ),
    Comparison(
        setting_comparison.REST_NAME,
        setting_comparison.REST_SENTENCE,
        setting_comparison.REST_DEFAULT,
        partial(
            setting_comparison.compare,
            setting_comparison.REST,
            setting_comparison.schedulers,
            setting_comparison.measure,
        ),
    ),
    # Last: it is refused where there is no telemetry.
    Comparison(telemetry_cost.NAME, telemetry_cost.SENTENCE, telemetry_cost.OFF, telemetry_cost.compare),
)

SENTENCES = {one.name: one.sentence for one in BENCHES} | {one.name: one.sentence for one in COMPARISONS}
"""What is done and counted, by the name of every bench."""
