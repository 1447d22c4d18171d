"""Rounds in turn: what disturbs the machine disturbs both sides."""

from __future__ import annotations

import getpass
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from ops import compose, settings_file
from ops.bench.comparisons import COMPARISONS
from ops.bench.statistics import Result, shown
from ops.bench.targets import STOCK, Side, ours, turns
from ops.bench.workloads import DAGS
from ops.clients import alertmanager
from ops.clients.prometheus import is_settled
from ops.errors import StackError
from ops.stock_airflow import one_worker_of, stock
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.bench.benches import Bench
    from ops.bench.comparisons import Comparison
    from ops.bench.statistics import Sample
    from ops.project import Project

    Report = Callable[[str], None]
    Samples = dict[str, dict[str, list[Sample]]]

MUTED = timedelta(hours=6)
"""At most; it ends with the benches. After a power cut nobody stays unheard for longer."""
SEVERITIES = ("page", "ticket")
QUIET_SECONDS = 300.0


def rounds_in_turn(
    benches: Sequence[Bench], sides: Sequence[Side], rounds: int, taken: Samples, report: Report
) -> None:
    """Every bench on one side, then on the other; who begins changes from round to round.

    Args:
        benches: What is measured.
        sides: On whom.
        rounds: How often.
        taken: Gets the samples by bench and side; what is there when something fails was measured.
        report: Shows a line to people.
    """
    for bench in benches:
        taken[bench.name] = {side.name: [] for side in sides}
    with turns(sides, report) as turn:
        for number in range(1, rounds + 1):
            for side in sides if number % 2 else reversed(sides):
                turn(side)
                for bench in benches:
                    sample = bench.measure(side, report)
                    taken[bench.name][side.name].append(sample)
                    told = ", ".join(f"{shown(value)} {name}" for name, value in list(sample.items())[:2])
                    report(f"round {number} of {rounds}, {side.name}, {bench.name}: {told}")


@contextmanager
def muted(settings: Mapping[str, str], report: Report) -> Iterator[None]:
    """Nobody is told of what the benches do to the stack: loads, frozen and stopped containers."""
    if "observability" not in settings_file.profiles(settings):
        yield
        return
    one = alertmanager.any_that_answers(alertmanager.both(settings))
    start = datetime.now(tz=UTC)
    silences = [
        one.silence({"severity": severity}, start, start + MUTED, getpass.getuser(), "./ops/stack bench")
        for severity in SEVERITIES
    ]
    report("alerts are muted while the benches run")
    try:
        yield
    finally:
        try:
            wait(lambda: is_settled(settings), QUIET_SECONDS, "no alert fires any more", report)
        except StackError as error:
            report(error.what)
        finally:
            for silence in silences:
                alertmanager.any_that_answers(alertmanager.both(settings)).end_silence(silence)


def conduct(
    benches: Sequence[Bench],
    comparisons: Sequence[Comparison],
    project: Project,
    settings: Mapping[str, str],
    taken: Samples,
    report: Report,
    *,
    rounds: int,
    beside_stock: bool,
) -> None:
    """Measures, and leaves the stack as it was.

    Args:
        benches: What is measured, in this order.
        comparisons: What only the stack is measured with, after them.
        project: The stack.
        settings: Its .env.
        taken: Gets the samples by bench and side, as they come.
        report: Shows a line to people.
        rounds: How often each.
        beside_stock: Whether a stock Airflow takes turns with it in the benches.
    """
    with muted(settings, report), ours(project, settings, report, DAGS) as here:
        if benches:
            with ExitStack() as stack:
                sides = [here]
                if beside_stock:
                    other = stack.enter_context(stock(project, settings, report, dags=[DAGS.path], dag_ids=DAGS.ids))
                    slots = partial(one_worker_of, other=other, report=report)
                    sides.append(Side(STOCK, other.name, compose.config(other.project), other.api, slots))
                rounds_in_turn(benches, sides, rounds, taken, report)
        for one in comparisons:
            taken[one.name] = {}
            one.compare(project, here, rounds, taken[one.name], report)


def check_alike(settings: Mapping[str, str]) -> None:
    """Refuses a comparison that would cost this stack what a stock Airflow does not have.

    Args:
        settings: The stack's .env.

    Raises:
        StackError: Each commit here is on two machines' disks before it counts.
    """
    if "data-ha" in settings_file.profiles(settings):
        raise StackError(
            "this stack's Postgres and Redis have replicas, a stock Airflow's have none",
            where="--stock --write",
            hint="./ops/stack up --profile data --profile flower --profile observability, or leave out --write",
        )


def results(taken: Samples) -> list[Result]:
    """What was measured, each with the side that it is compared with."""
    return [Result(name, of, base(name, of)) for name, of in taken.items() if any(of.values())]


def base(bench: str, samples: Mapping[str, Sequence[Sample]]) -> str | None:
    """The side that others are compared with: a stock Airflow, or what a comparison names; None without its samples."""
    side = next((one.base for one in COMPARISONS if one.name == bench), STOCK)
    return side if samples.get(side) else None


def choose(
    benches: Sequence[Bench], comparisons: Sequence[Comparison], names: Sequence[str], *, every: bool
) -> tuple[list[Bench], list[Comparison]]:
    """Those that were asked for, of each kind in its order.

    Raises:
        StackError: One does not exist.
    """
    known = [one.name for one in benches] + [one.name for one in comparisons]
    for name in names:
        if name not in known:
            raise StackError(f"there is no bench {name!r}", hint=f"these are: {', '.join(known)}")
    wanted = known if every else names
    return [one for one in benches if one.name in wanted], [one for one in comparisons if one.name in wanted]
