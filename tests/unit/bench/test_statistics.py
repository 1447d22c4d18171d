"""Medians with their spread, ratios round by round, and tables of them."""

from __future__ import annotations

import pytest

from ops.bench.statistics import Result, Spread, by_service, headings, percentile, ratio, rows, shown, spread


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0426, "0.043"), (0.5, "0.500"), (3.14159, "3.14"), (31.4159, "31.4"), (1234.5, "1,234")],
)
def test_a_number_has_the_digits_that_mean_something(value, text):
    assert shown(value) == text


def test_a_spread_is_the_median_between_the_extremes():
    assert spread([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)
    assert str(Spread(2.5, 1.0, 9.0)) == "2.50 (1\u20139)"
    assert str(Spread(2.0, 2.0, 2.0)) == "2"
    assert spread([]) is None


def test_a_percentile_is_one_of_the_values():
    values = [float(number) for number in range(1, 21)]
    assert percentile(values, 0.95) == 19.0
    assert percentile(values, 0.5) == 10.0
    assert percentile(values, 1.0) == 20.0
    assert percentile([7.0], 0.95) == 7.0


def test_a_ratio_pairs_the_rounds_so_that_a_slow_machine_hurts_both():
    here, stock = [{"s": 1.0}, {"s": 10.0}, {"s": 2.0}], [{"s": 2.0}, {"s": 20.0}, {"s": 8.0}]
    assert ratio(here, stock, "s") == Spread(0.5, 0.25, 0.5)


def test_a_round_that_one_side_did_not_reach_has_no_ratio():
    assert ratio([{"s": 1.0}, {"s": 2.0}], [{"s": 2.0}], "s") == Spread(0.5, 0.5, 0.5)
    assert ratio([{"s": 1.0}], [{"t": 2.0}], "s") is None
    assert ratio([{"s": 1.0}], [{"s": 0.0}], "s") is None


def test_a_table_has_a_column_a_side_and_one_a_ratio():
    result = Result("b", {"here": [{"s": 1.0, "only": 5.0}], "stock": [{"s": 2.0}]}, "stock")
    assert headings(result) == ["", "here", "stock", "here ÷ stock"]
    assert rows(result) == [["s", "1", "2", "0.500"], ["only", "5", "", ""]]


def test_without_a_base_there_is_no_ratio():
    result = Result("b", {"here": [{"s": 1.0}]}, None)
    assert headings(result) == ["", "here"]
    assert rows(result) == [["s", "1"]]


def test_telemetry_compares_every_way_with_off():
    samples = {way: [{"s": value}] for way, value in (("on", 1.0), ("frozen", 2.0), ("off", 4.0))}
    result = Result("telemetry", samples, "off")
    assert headings(result) == ["", "on", "frozen", "off", "on ÷ off", "frozen ÷ off"]
    assert rows(result) == [["s", "1", "2", "4", "0.250", "0.500"]]


def test_services_come_after_their_sum():
    assert list(by_service("cores", {"redis": 1.0, "worker": 3.0}, 2).items()) == [
        ("cores", 2.0),
        ("cores: redis", 0.5),
        ("cores: worker", 1.5),
    ]


def test_more_sides_than_columns_have_a_row_each():
    sides = {
        name: [{"s": seconds, "tasks/s": 2.0}] for name, seconds in zip("abcdef", (2.0, 4, 6, 1, 2, 3), strict=True)
    }
    result = Result("patches", sides, "a")
    assert headings(result) == ["", "s", "÷ a", "tasks/s", "÷ a"]
    assert rows(result)[:2] == [["a", "2", "", "2", ""], ["b", "4", "2", "2", "1"]]
    assert len(rows(result)) == 6
    assert headings(Result("patches", sides, None)) == ["", "s", "tasks/s"]
