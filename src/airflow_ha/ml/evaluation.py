"""Select the best candidate and score it on held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.ml.artifacts import Document, once, read_arrays, read_json, read_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_ha.ml.artifacts import ArtifactPath


def evaluate(candidates: Sequence[str], run_directory: ArtifactPath) -> Document:
    """Select the candidate with the best validation accuracy and score all on the held-out test part.

    The validation part decides, so the winner's accuracy on the test part is unbiased. Of equal candidates the first
    one wins.

    Returns:
        `winner`, its `accuracy` and `macro_f1` on held-out data, `test_samples`, and for each of the
        `candidates` its `validation_accuracy` and held-out `accuracy` (all 0 to 1).

    Raises:
        FileNotFoundError: a candidate has not been trained.
        ValueError: the list of candidates is empty.
    """
    if not candidates:
        raise ValueError("cannot evaluate: the list of candidates is empty")

    def work() -> Document:
        from sklearn.metrics import accuracy_score, f1_score

        split = read_arrays(run_directory / "split.npz")
        scores: dict[str, dict[str, float]] = {}
        macro_f1: dict[str, float] = {}
        for candidate in candidates:
            training = read_json(run_directory / "models" / f"{candidate}.json")
            if training is None:
                raise FileNotFoundError(f"cannot evaluate {candidate!r}: it has not been trained in {run_directory}")
            model = read_model(run_directory / "models" / f"{candidate}.joblib")
            predicted = model.predict(split["test"])
            scores[candidate] = {
                "validation_accuracy": training["validation_accuracy"],
                "accuracy": float(accuracy_score(split["test_labels"], predicted)),
            }
            macro_f1[candidate] = float(f1_score(split["test_labels"], predicted, average="macro"))
        winner = max(scores, key=lambda name: scores[name]["validation_accuracy"])
        return {
            "winner": winner,
            "accuracy": scores[winner]["accuracy"],
            "macro_f1": macro_f1[winner],
            "test_samples": len(split["test_labels"]),
            "candidates": scores,
        }

    return once(run_directory / "evaluation.json", work)
