"""Medians with their spread, ratios, and tables of them."""

from __future__ import annotations

import pytest

from ops.bench.statistics import (
    Result,
    Spread,
    by_service,
    format_number,
    paired_ratio,
    percentile,
    spread,
    table_headings,
    table_rows,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0426, "0.043"), (0.5, "0.500"), (3.14159, "3.14"), (31.4159, "31.4"), (1234.5, "1,234")],
)
def test_number_has_three_significant_digits(value, text):
    assert format_number(value) == text


def test_spread_is_median_minimum_and_maximum():
    assert spread([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)
    assert str(Spread(2.5, 1.0, 9.0)) == "2.50 (1\u20139)"
    assert str(Spread(2.0, 2.0, 2.0)) == "2"
    assert spread([]) is None


def test_percentile_is_one_of_the_values():
    values = [float(number) for number in range(1, 21)]
    assert percentile(values, 0.95) == 19.0
    assert percentile(values, 0.5) == 10.0
    assert percentile(values, 1.0) == 20.0
    assert percentile([7.0], 0.95) == 7.0


def test_ratio_pairs_the_samples_of_a_round():
    here, stock = [{"s": 1.0}, {"s": 10.0}, {"s": 2.0}], [{"s": 2.0}, {"s": 20.0}, {"s": 8.0}]
    assert paired_ratio(here, stock, "s") == Spread(0.5, 0.25, 0.5)


def test_round_without_both_samples_has_no_ratio():
    assert paired_ratio([{"s": 1.0}, {"s": 2.0}], [{"s": 2.0}], "s") == Spread(0.5, 0.5, 0.5)
    assert paired_ratio([{"s": 1.0}], [{"t": 2.0}], "s") is None
    assert paired_ratio([{"s": 1.0}], [{"s": 0.0}], "s") is None


def test_table_has_a_column_for_each_variant_and_ratio():
    result = Result("b", {"here": [{"s": 1.0, "only": 5.0}], "stock": [{"s": 2.0}]}, "stock")
    assert table_headings(result) == ["", "here", "stock", "here ÷ stock"]
    assert table_rows(result) == [["s", "1", "2", "0.500"], ["only", "5", "", ""]]


def test_result_without_a_base_has_no_ratio():
    result = Result("b", {"here": [{"s": 1.0}]}, None)
    assert table_headings(result) == ["", "here"]
    assert table_rows(result) == [["s", "1"]]


def test_every_variant_is_compared_with_the_base():
    samples = {variant: [{"s": value}] for variant, value in (("on", 1.0), ("frozen", 2.0), ("off", 4.0))}
    result = Result("telemetry", samples, "off")
    assert table_headings(result) == ["", "on", "frozen", "off", "on ÷ off", "frozen ÷ off"]
    assert table_rows(result) == [["s", "1", "2", "4", "0.250", "0.500"]]


def test_sum_comes_before_the_services():
    assert list(by_service("cores", {"redis": 1.0, "worker": 3.0}, 2).items()) == [
        ("cores", 2.0),
        ("cores: redis", 0.5),
        ("cores: worker", 1.5),
    ]


def test_many_variants_have_a_row_each():
    variants = {
        name: [{"s": seconds, "tasks/s": 2.0}] for name, seconds in zip("abcdef", (2.0, 4, 6, 1, 2, 3), strict=True)
    }
    result = Result("patches", variants, "a")
    assert table_headings(result) == ["", "s", "÷ a", "tasks/s", "÷ a"]
    assert table_rows(result)[:2] == [["a", "2", "", "2", ""], ["b", "4", "2", "2", "1"]]
    assert len(table_rows(result)) == 6
    assert table_headings(Result("patches", variants, None)) == ["", "s", "tasks/s"]
