"""The benches of the stack with itself: what it costs to have more of something, or less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_ha.patches.registry import PATCHES
from ops.bench import commits, dag_files, instances, memory_load, patch_switches, settings, telemetry
from ops.bench.catalogue import BENCHES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.figures import Sample
    from ops.bench.side import Side
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
            instances.sentence(service, sizes),
            instances.named(service, sizes[0]),
            partial(instances.compare, service, sizes),
        )
        for service, sizes in (("scheduler", instances.SCHEDULERS), ("worker", instances.WORKERS))
    ),
    Comparison(dag_files.NAME, dag_files.SENTENCE, dag_files.named(dag_files.SIZES[0]), dag_files.compare),
    Comparison(memory_load.NAME, memory_load.SENTENCE, memory_load.AT_REST, memory_load.compare),
    Comparison(commits.NAME, commits.SENTENCE, commits.BASE, commits.compare),
    Comparison(
        patch_switches.NAME,
        patch_switches.SENTENCE,
        patch_switches.ALL_ON,
        partial(settings.compare, patch_switches.each_off(PATCHES), patch_switches.affected, patch_switches.measure),
    ),
    Comparison(
        patch_switches.MODES_NAME,
        patch_switches.MODES_SENTENCE,
        next(iter(patch_switches.MODES)),
        partial(settings.compare, patch_switches.MODES, patch_switches.affected, patch_switches.measure_mode),
    ),
    Comparison(
        settings.REST_NAME,
        settings.REST_SENTENCE,
        settings.REST_DEFAULT,
        partial(settings.compare, settings.REST, settings.schedulers, settings.measure),
    ),
    # Last: it is refused where there is no telemetry.
    Comparison(telemetry.NAME, telemetry.SENTENCE, telemetry.OFF, telemetry.compare),
)

SENTENCES = {one.name: one.sentence for one in BENCHES} | {one.name: one.sentence for one in COMPARISONS}
"""What is done and counted, by the name of every bench."""
