"""The gate is a number from 0 to 1, and a model must reach it."""

import re

import pytest

from airflow_ha.ml.quality_gate import QualityGateError, judge, required_accuracy

EVALUATION = {"winner": "random_forest", "accuracy": 0.95}


def test_gate_defaults_to_095():
    assert required_accuracy(None) == 0.95


@pytest.mark.parametrize(("text", "accuracy"), [("0.9", 0.9), (" 1 ", 1.0), ("0", 0.0)])
def test_gate_is_read_from_the_variable(text, accuracy):
    assert required_accuracy(text) == accuracy


@pytest.mark.parametrize("text", ["", "high", "95", "-0.1", "nan", "95%"])
def test_invalid_gate_is_refused_with_variable_value_and_range(text):
    with pytest.raises(QualityGateError, match=f"ml_quality_gate_accuracy.*'{text}'.* 0 to 1"):
        required_accuracy(text)


def test_accuracy_equal_to_the_gate_passes():
    assert judge(EVALUATION, 0.95)["passed"] is True


def test_accuracy_below_the_gate_fails_with_both_figures():
    verdict = judge(EVALUATION, 0.951)

    assert verdict["passed"] is False
    assert re.search(r"0\.9500 of random_forest.*0\.9510", verdict["reason"])
