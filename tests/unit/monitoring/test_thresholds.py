"""Thresholds are Airflow Variables with defaults; an invalid one is reported and its default applies."""

from __future__ import annotations

from dataclasses import fields

import pytest

from airflow_ha.monitoring import thresholds
from airflow_ha.monitoring.thresholds import ThresholdError, Thresholds, number, read


def test_unset_variables_give_the_defaults():
    assert read(lambda _: None) == (Thresholds(), [])


def test_set_variables_replace_the_defaults():
    values, errors = read({"monitoring_failure_rate": " 0.5 ", "monitoring_queued_seconds": "60"}.get)
    assert (values.failure_rate, values.queued_seconds, errors) == (0.5, 60, [])
    assert values.overdue_seconds == Thresholds().overdue_seconds


@pytest.mark.parametrize("text", ["", "high", "20%", "-0.1", "1.01", "nan", "inf"])
def test_invalid_value_is_refused_with_variable_and_range(text):
    with pytest.raises(ThresholdError) as error:
        number("monitoring_failure_rate", text, least=0, most=1, default=0.2)
    assert f"monitoring_failure_rate: {text!r}" in str(error.value)
    assert "0 to 1" in str(error.value)


@pytest.mark.parametrize("text", ["0", "1"])
def test_range_includes_its_limits(text):
    assert number("v", text, least=0, most=1, default=0.2) == float(text)


def test_invalid_variable_does_not_affect_the_others():
    values, errors = read({"monitoring_failure_rate": "20", "monitoring_min_ended_runs": "9"}.get)
    assert (values.failure_rate, values.min_ended_runs) == (0.2, 9)
    assert [error.variable for error in errors] == ["monitoring_failure_rate"]


@pytest.mark.parametrize("each", fields(Thresholds), ids=lambda each: each.name)
def test_table_lists_every_variable_with_default_and_range(each):
    least, most = each.metadata["least"], each.metadata["most"]
    row = f"| `monitoring_{each.name}` | {each.default:g} | {least} to {most} |"
    assert row in str(thresholds.__doc__)
