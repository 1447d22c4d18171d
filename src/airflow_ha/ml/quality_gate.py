"""The quality gate: the held-out accuracy that a model needs to be registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ha.ml.artifacts import Document

VARIABLE = "ml_quality_gate_accuracy"
DEFAULT_ACCURACY = 0.95


class QualityGateError(ValueError):
    """The Variable of the gate does not hold an accuracy."""


def required_accuracy(text: str | None) -> float:
    """Return the least held-out accuracy (0 to 1) from the Airflow Variable's text; None gives the default.

    Raises:
        QualityGateError: the text is not a number from 0 to 1.
    """
    if text is None:
        return DEFAULT_ACCURACY
    try:
        accuracy = float(text)
    except ValueError:
        accuracy = float("nan")
    if not 0 <= accuracy <= 1:
        raise QualityGateError(
            f"cannot read the Airflow Variable {VARIABLE}: {text!r} is not a number from 0 to 1, such as 0.95"
        )
    return accuracy


def judge(evaluation: Document, required: float) -> Document:
    """Compare the winner's held-out accuracy with the gate.

    Returns:
        `passed`, `required_accuracy`, and the `reason` as a sentence.
    """
    accuracy = evaluation["accuracy"]
    passed = accuracy >= required
    reason = (
        f"held-out accuracy {accuracy:.4f} of {evaluation['winner']} "
        f"{'reaches' if passed else 'is below'} the required {required:.4f}"
    )
    return {"passed": passed, "required_accuracy": required, "reason": reason}
