"""The quality gate: how accurate a model must be to be registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ha.ml.artifacts import Document

VARIABLE = "ml_quality_gate_accuracy"
DEFAULT_ACCURACY = 0.95


class QualityGateError(ValueError):
    """The gate is set to something that is no accuracy."""


def required_accuracy(text: str | None) -> float:
    """Read the gate from the Airflow Variable's text; the default where it is not set.

    Returns:
        The least held-out accuracy, 0 to 1.

    Raises:
        QualityGateError: the text is no number from 0 to 1.
    """
    if text is None:
        return DEFAULT_ACCURACY
    try:
        accuracy = float(text)
    except ValueError:
        accuracy = float("nan")
    if not 0 <= accuracy <= 1:
        raise QualityGateError(
            f"the Airflow Variable {VARIABLE} is {text!r}; it must be a number from 0 to 1, such as 0.95"
        )
    return accuracy


def judge(evaluation: Document, required: float) -> Document:
    """Hold the winner's held-out accuracy against the gate.

    Returns:
        `passed`, `required_accuracy`, and the `reason` in words.
    """
    accuracy = evaluation["accuracy"]
    passed = accuracy >= required
    reason = (
        f"held-out accuracy {accuracy:.4f} of {evaluation['winner']} "
        f"{'reaches' if passed else 'is below'} the required {required:.4f}"
    )
    return {"passed": passed, "required_accuracy": required, "reason": reason}
