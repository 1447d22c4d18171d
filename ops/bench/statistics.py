"""Samples, and what can be said of them: medians with their spread, and ratios round by round."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDEST = 5
"""Sides that a table has a column for; with their ratios these are ten columns."""

Sample = dict[str, float]
"""What one round has measured on one side, by the figure's name."""


@dataclass(frozen=True)
class Spread:
    """Several rounds' values of one figure."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return shown(self.median)
        return f"{shown(self.median)} ({shown(self.low)}–{shown(self.high)})"  # noqa: RUF001


@dataclass(frozen=True)
class Result:
    """A bench's rounds.

    Attributes:
        bench: its name.
        samples: a sample a round, by side.
        base: the side that the others are compared with; None when there is nothing to compare with.
    """

    bench: str
    samples: dict[str, list[Sample]]
    base: str | None


def shown(value: float) -> str:
    """A number with as many digits as mean something."""
    size = abs(value)
    digits = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all is not above: by nearest rank, so it is one of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Iterable[float]) -> Spread | None:
    """The median and the extremes; None of no value."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def values(samples: Iterable[Sample], figure: str) -> list[float]:
    """One figure of several rounds, of those that have it."""
    return [sample[figure] for sample in samples if figure in sample]


def ratio(samples: Iterable[Sample], base: Iterable[Sample], figure: str) -> Spread | None:
    """One side against another, round by round: what disturbed a round has disturbed both."""
    pairs = [
        (one[figure], other[figure])
        for one, other in zip(samples, base, strict=False)
        if figure in one and figure in other
    ]
    return spread(one / other for one, other in pairs if other)


def is_wide(result: Result) -> bool:
    """Return whether there are too many sides for columns: then each has a row, and each figure a column."""
    return len(result.samples) > WIDEST


def headings(result: Result) -> list[str]:
    """Return the table's first row: the sides, then those that are compared; or each figure with its ratio."""
    if is_wide(result):
        ratios = [f"÷ {result.base}"] if result.base else []
        return ["", *(cell for figure in figures(result) for cell in (figure, *ratios))]
    return ["", *result.samples, *(f"{side} ÷ {result.base}" for side in compared(result))]


def compared(result: Result) -> list[str]:
    """The sides that have a ratio."""
    return [side for side in result.samples if side != result.base] if result.base else []


def figures(result: Result) -> list[str]:
    """Return the names of the figures, in the order in which they were measured first."""
    return list(dict.fromkeys(name for of in result.samples.values() for sample in of for name in sample))


def rows(result: Result) -> list[list[str]]:
    """Return the rows: medians with their spread, and ratios to the base."""
    base = result.samples.get(result.base or "", [])
    if is_wide(result):
        return [side_row(side, of, result, base) for side, of in result.samples.items()]
    found = []
    for figure in figures(result):
        cells: list[Spread | None] = [spread(values(of, figure)) for of in result.samples.values()]
        cells += [ratio(result.samples[side], base, figure) for side in compared(result)]
        found.append([figure, *map(cell_text, cells)])
    return found


def side_row(side: str, samples: Sequence[Sample], result: Result, base: Sequence[Sample]) -> list[str]:
    """Return a side's row in a table that has a column for each figure."""
    cells: list[Spread | None] = []
    for figure in figures(result):
        cells.append(spread(values(samples, figure)))
        if result.base:
            cells.append(None if side == result.base else ratio(samples, base, figure))
    return [side, *map(cell_text, cells)]


def cell_text(cell: Spread | None) -> str:
    """Return what a cell shows; nothing of no value."""
    return "" if cell is None else str(cell)


def by_service(name: str, of: Mapping[str, float], scale: float) -> Sample:
    """A figure for all services together, then one for each.

    Args:
        name: the figure's, with its unit.
        of: a value by service.
        scale: what each is divided by.
    """
    return {name: sum(of.values()) / scale} | {f"{name}: {service}": used / scale for service, used in of.items()}
