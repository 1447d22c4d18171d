"""Samples of benches: medians with their spread, and ratios between variants."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_VARIANT_COLUMNS = 5
"""With the ratios, a table of so many variants has ten columns."""

Sample = dict[str, float]
"""The figures that one round measured for one variant, by name."""


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of one figure over several rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return format_number(self.median)
        return f"{format_number(self.median)} ({format_number(self.low)}–{format_number(self.high)})"  # noqa: RUF001


@dataclass(frozen=True)
class Result:
    """All samples of a bench.

    Attributes:
        bench: Name of the bench.
        samples: One sample a round, by variant: the name of a target ("here", "stock") or of a configuration
            ("2 workers").
        base: The variant that the others are compared with; None if there is none.
    """

    bench: str
    samples: dict[str, list[Sample]]
    base: str | None


def format_number(value: float) -> str:
    """Return a number with about three significant digits and thousands separators."""
    size = abs(value)
    digits = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile by nearest rank, which is always one of the values.

    Args:
        values: At least one.
        share: Share of 1, for instance 0.95.
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Iterable[float]) -> Spread | None:
    """Return median, minimum and maximum; None if there is no value."""
    numbers = list(values)
    return Spread(statistics.median(numbers), min(numbers), max(numbers)) if numbers else None


def figure_values(samples: Iterable[Sample], figure: str) -> list[float]:
    """Return the values of one figure, from the samples that have it."""
    return [sample[figure] for sample in samples if figure in sample]


def paired_ratio(samples: Iterable[Sample], base: Iterable[Sample], figure: str) -> Spread | None:
    """Return the spread of the ratios of each round: a disturbed round affects both variants."""
    pairs = [
        (sample[figure], base_sample[figure])
        for sample, base_sample in zip(samples, base, strict=False)
        if figure in sample and figure in base_sample
    ]
    return spread(value / base_value for value, base_value in pairs if base_value)


def has_row_per_variant(result: Result) -> bool:
    """Return whether the table has a row for each variant, because there are too many for columns."""
    return len(result.samples) > MAX_VARIANT_COLUMNS


def table_headings(result: Result) -> list[str]:
    """Return the headings of the table that `table_rows` fills."""
    if has_row_per_variant(result):
        ratios = [f"÷ {result.base}"] if result.base else []
        return ["", *(cell for figure in figure_names(result) for cell in (figure, *ratios))]
    return ["", *result.samples, *(f"{variant} ÷ {result.base}" for variant in compared_variants(result))]


def compared_variants(result: Result) -> list[str]:
    """Return the variants that are compared with the base."""
    return [variant for variant in result.samples if variant != result.base] if result.base else []


def figure_names(result: Result) -> list[str]:
    """Return the names of all figures, in the order in which they first occur."""
    return list(dict.fromkeys(name for samples in result.samples.values() for sample in samples for name in sample))


def table_rows(result: Result) -> list[list[str]]:
    """Return the rows: medians with their spread, and ratios to the base."""
    base = result.samples.get(result.base or "", [])
    if has_row_per_variant(result):
        return [variant_row(variant, result, base) for variant in result.samples]
    table = []
    for figure in figure_names(result):
        cells: list[Spread | None] = [spread(figure_values(samples, figure)) for samples in result.samples.values()]
        cells += [paired_ratio(result.samples[variant], base, figure) for variant in compared_variants(result)]
        table.append([figure, *map(format_cell, cells)])
    return table


def variant_row(variant: str, result: Result, base: Sequence[Sample]) -> list[str]:
    """Return the row of a variant, in a table with a column for each figure."""
    samples = result.samples[variant]
    cells: list[Spread | None] = []
    for figure in figure_names(result):
        cells.append(spread(figure_values(samples, figure)))
        if result.base:
            cells.append(None if variant == result.base else paired_ratio(samples, base, figure))
    return [variant, *map(format_cell, cells)]


def format_cell(cell: Spread | None) -> str:
    """Return the text of a cell; empty if there is no value."""
    return "" if cell is None else str(cell)


def by_service(figure: str, amounts: Mapping[str, float], divisor: float) -> Sample:
    """Return a figure summed over all services, then one figure for each service.

    Args:
        figure: Name with its unit.
        amounts: By service.
        divisor: Number that each amount is divided by.
    """
    total = {figure: sum(amounts.values()) / divisor}
    return total | {f"{figure}: {service}": amount / divisor for service, amount in amounts.items()}
