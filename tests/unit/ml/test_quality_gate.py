"""The gate is a number from 0 to 1; a model must reach it."""

import pytest

from airflow_ha.ml.quality_gate import QualityGateError, judge, required_accuracy

EVALUATION = {"winner": "random_forest", "accuracy": 0.95}


def test_the_gate_is_095_unless_set():
    assert required_accuracy(None) == 0.95


@pytest.mark.parametrize(("text", "accuracy"), [("0.9", 0.9), (" 1 ", 1.0), ("0", 0.0)])
def test_the_gate_is_read_from_the_variables_text(text, accuracy):
    assert required_accuracy(text) == accuracy


@pytest.mark.parametrize("text", ["", "high", "95", "-0.1", "nan", "95%"])
def test_a_gate_that_is_no_accuracy_is_refused_and_the_message_names_variable_value_and_range(text):
    message = f"Variable ml_quality_gate_accuracy is '{text}'; it must be a number from 0 to 1"
    with pytest.raises(QualityGateError, match=message):
        required_accuracy(text)


def test_an_accuracy_that_just_reaches_the_gate_passes():
    assert judge(EVALUATION, 0.95)["passed"] is True


def test_an_accuracy_below_the_gate_fails_with_both_figures():
    verdict = judge(EVALUATION, 0.951)

    assert verdict["passed"] is False
    assert verdict["reason"] == "held-out accuracy 0.9500 of random_forest is below the required 0.9510"
