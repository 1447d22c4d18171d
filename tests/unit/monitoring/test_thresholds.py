"""Airflow Variables with defaults; a bad one is said, and its default goes on."""

from __future__ import annotations

from dataclasses import fields

import pytest

from airflow_ha.monitoring import thresholds
from airflow_ha.monitoring.thresholds import ThresholdError, Thresholds, number, read


def test_all_may_be_left_unset():
    assert read(lambda _: None) == (Thresholds(), [])


def test_those_that_are_set_count():
    found, errors = read({"monitoring_failure_rate": " 0.5 ", "monitoring_queued_seconds": "60"}.get)
    assert (found.failure_rate, found.queued_seconds, errors) == (0.5, 60, [])
    assert found.overdue_seconds == Thresholds().overdue_seconds


@pytest.mark.parametrize("text", ["", "high", "20%", "-0.1", "1.01", "nan", "inf"])
def test_a_bad_one_is_refused_with_variable_value_and_what_it_takes(text):
    with pytest.raises(ThresholdError) as error:
        number("monitoring_failure_rate", text, least=0, most=1, default=0.2)
    assert str(error.value) == (
        f"the Airflow Variable monitoring_failure_rate is {text!r}; it must be a number from 0 to 1, "
        "such as 0.2, which is used until then"
    )


@pytest.mark.parametrize("text", ["0", "1"])
def test_the_ends_of_the_range_are_in_it(text):
    assert number("v", text, least=0, most=1, default=0.2) == float(text)


def test_the_others_count_beside_a_bad_one_and_its_default_does():
    found, errors = read({"monitoring_failure_rate": "20", "monitoring_min_ended_runs": "9"}.get)
    assert (found.failure_rate, found.min_ended_runs) == (0.2, 9)
    assert [error.variable for error in errors] == ["monitoring_failure_rate"]


@pytest.mark.parametrize("each", fields(Thresholds), ids=lambda each: each.name)
def test_the_table_tells_every_variable_its_default_and_its_range(each):
    least, most = each.metadata["least"], each.metadata["most"]
    row = f"| `monitoring_{each.name}` | {each.default:g} | {least} to {most} |"
    assert row in str(thresholds.__doc__)
