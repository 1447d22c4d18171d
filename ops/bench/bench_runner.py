"""Run benches in rounds with alternating targets, so that a disturbance of the machine affects all targets."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from ops import compose, settings_file
from ops.bench.comparisons import COMPARISONS
from ops.bench.statistics import Result, format_number
from ops.bench.targets import STOCK, Measurement, Target, stack_target, taking_turns
from ops.bench.workloads import DAGS
from ops.errors import StackError
from ops.silenced_alerts import silenced_alerts
from ops.stock_airflow import single_worker, stock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ops.bench.benches import Bench
    from ops.bench.comparisons import Comparison
    from ops.bench.statistics import Sample
    from ops.project import Project

    Report = Callable[[str], None]
    Samples = dict[str, dict[str, list[Sample]]]

SILENCED = timedelta(hours=6)
"""Longest silence, also after a power failure in the middle of a bench."""


@dataclass(frozen=True)
class Plan:
    """The benches to run, and how often.

    Attributes:
        benches: Benches that can run on a stock Airflow too.
        comparisons: Benches of the stack with itself.
        rounds: How often each is measured.
        with_stock: Whether the benches also run on a stock Airflow.
    """

    benches: Sequence[Bench]
    comparisons: Sequence[Comparison]
    rounds: int
    with_stock: bool


def measure_in_turns(
    benches: Sequence[Bench], targets: Sequence[Target], rounds: int, samples: Samples, report: Report
) -> None:
    """Run all benches on each target, in alternating order.

    Args:
        benches: The benches.
        targets: The targets.
        rounds: How often each bench runs on each target.
        samples: By bench and target; filled while benches run, so that a failure keeps the samples before it.
        report: Shows a progress line.
    """
    for bench in benches:
        samples[bench.name] = {target.name: [] for target in targets}
    with taking_turns(targets, report) as activate:
        for number in range(1, rounds + 1):
            for target in targets if number % 2 else reversed(targets):
                activate(target)
                for bench in benches:
                    sample = bench.measure(target, report)
                    samples[bench.name][target.name].append(sample)
                    figures = ", ".join(f"{format_number(value)} {name}" for name, value in list(sample.items())[:2])
                    report(f"round {number} of {rounds}, {target.name}, {bench.name}: {figures}")


def run_plan(plan: Plan, project: Project, settings: Mapping[str, str], samples: Samples, report: Report) -> None:
    """Run the benches, then the comparisons, and restore the stack.

    Args:
        plan: The benches to run.
        project: The stack.
        settings: Its .env.
        samples: By bench and variant; filled while benches run, so that a failure keeps the samples before it.
        report: Shows a progress line.
    """
    with silenced_alerts(settings, SILENCED, "bench", report), stack_target(project, settings, report, DAGS) as ours:
        if plan.benches:
            with ExitStack() as stack:
                targets = [ours]
                if plan.with_stock:
                    other = stack.enter_context(stock(project, settings, report, dags=[DAGS.path], dag_ids=DAGS.ids))
                    limit_slots = partial(single_worker, other=other, report=report)
                    targets.append(Target(STOCK, other.name, compose.config(other.project), other.api, limit_slots))
                measure_in_turns(plan.benches, targets, plan.rounds, samples, report)
        for comparison in plan.comparisons:
            samples[comparison.name] = {}
            comparison.compare(Measurement(project, ours, plan.rounds, samples[comparison.name], report))


def check_comparable(settings: Mapping[str, str]) -> None:
    """Check that the stack's data tier is as redundant as a stock Airflow's.

    Args:
        settings: The stack's .env.

    Raises:
        StackError: Each commit of the stack waits for a replica.
    """
    if "data-ha" in settings_file.profiles(settings):
        raise StackError(
            "cannot compare with a stock Airflow: this stack's Postgres and Redis have replicas",
            where="--stock --write",
            hint="run ./ops/stack up --profile data --profile flower --profile observability, or omit --write",
        )


def to_results(samples: Samples) -> list[Result]:
    """Return a result for each bench with samples."""
    return [
        Result(bench, by_variant, base_variant(bench, by_variant))
        for bench, by_variant in samples.items()
        if any(by_variant.values())
    ]


def base_variant(bench: str, samples: Mapping[str, Sequence[Sample]]) -> str | None:
    """Return the variant that the others are compared with; None if it has no samples."""
    base = next((comparison.base for comparison in COMPARISONS if comparison.name == bench), STOCK)
    return base if samples.get(base) else None


def select(
    benches: Sequence[Bench], comparisons: Sequence[Comparison], names: Sequence[str], *, every: bool
) -> tuple[list[Bench], list[Comparison]]:
    """Return the benches and comparisons with these names, or all of them, in their own order.

    Raises:
        StackError: A name is unknown.
    """
    known = [bench.name for bench in benches] + [comparison.name for comparison in comparisons]
    for name in names:
        if name not in known:
            raise StackError(
                f"cannot run the bench {name!r}: it does not exist", hint=f"choose one of: {', '.join(known)}"
            )
    selected = known if every else names
    return (
        [bench for bench in benches if bench.name in selected],
        [comparison for comparison in comparisons if comparison.name in selected],
    )
